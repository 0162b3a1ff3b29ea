-- The log. Names follow OpenTelemetry's GenAI conventions without their prefix; times are UTC, durations seconds.
-- No primary keys or indexes: zone maps over UUIDv7 serve point lookups, and DuckLake has neither.
CREATE TABLE IF NOT EXISTS invocations(
  id UUID NOT NULL,                                  -- UUIDv7 made by the gateway; the answer's id is chatcmpl-<hex of it>
  ts TIMESTAMP NOT NULL,                             -- request start
  ingest_ts TIMESTAMP NOT NULL,                      -- set by the ingester: the learner's watermark
  tenant VARCHAR NOT NULL,
  task VARCHAR NOT NULL,                             -- metadata.task, else the alias
  episode_id UUID NOT NULL,
  parent_id UUID,
  conversation_id VARCHAR,
  trace_id VARCHAR,
  span_id VARCHAR,
  operation_name VARCHAR NOT NULL,
  provider_name VARCHAR NOT NULL,
  request_model VARCHAR NOT NULL,                    -- the alias, as the client wrote it
  response_model VARCHAR,
  response_id VARCHAR,
  engine VARCHAR,                                    -- which vLLM answered
  adapter VARCHAR,                                   -- <alias>--<digest[:12]>; NULL: the base answered
  arm VARCHAR,
  propensity DOUBLE,
  stream BOOLEAN,
  finish_reasons VARCHAR[],
  status SMALLINT,
  error_type VARCHAR,
  input_tokens INTEGER,
  output_tokens INTEGER,
  cache_read_input_tokens INTEGER,
  reasoning_output_tokens INTEGER,
  time_to_first_chunk DOUBLE,
  duration DOUBLE,
  cost DOUBLE,
  subject_id VARCHAR,
  train_ok BOOLEAN NOT NULL,
  prompt_hash VARCHAR,                               -- of messages and tools: equal prompts, equal hash
  tags MAP(VARCHAR, VARCHAR),
  schema_version SMALLINT NOT NULL,
  request JSON USING COMPRESSION zstd,
  response JSON USING COMPRESSION zstd);

CREATE TABLE IF NOT EXISTS feedback(
  id UUID NOT NULL,
  ts TIMESTAMP NOT NULL,
  ingest_ts TIMESTAMP NOT NULL,
  tenant VARCHAR NOT NULL,
  target VARCHAR NOT NULL,                           -- invocation | episode
  target_id UUID NOT NULL,
  name VARCHAR NOT NULL,                             -- a metric, or comment | demonstration
  score_value DOUBLE,
  score_label VARCHAR,
  explanation VARCHAR USING COMPRESSION zstd,
  value JSON USING COMPRESSION zstd,                 -- a demonstration's assistant message
  source VARCHAR NOT NULL,                           -- human | grader | judge | implicit
  evaluator VARCHAR,
  error_type VARCHAR,
  subject_id VARCHAR,
  tags MAP(VARCHAR, VARCHAR));

CREATE TABLE IF NOT EXISTS spool_segments(           -- append-only: the largest upto of a segment is its offset
  segment VARCHAR NOT NULL,
  upto BIGINT NOT NULL,
  n_rows INTEGER NOT NULL,
  ts TIMESTAMP NOT NULL);

CREATE TABLE IF NOT EXISTS datasets(
  id UUID NOT NULL,
  ts TIMESTAMP NOT NULL,
  task VARCHAR NOT NULL,
  from_ts TIMESTAMP,
  upto_ts TIMESTAMP,
  query VARCHAR,
  path VARCHAR,
  sha256 VARCHAR,
  n_rows INTEGER);

CREATE TABLE IF NOT EXISTS dataset_items(dataset_id UUID NOT NULL, invocation_id UUID NOT NULL, split VARCHAR);

CREATE OR REPLACE VIEW feedback_current AS SELECT * FROM feedback
  QUALIFY row_number() OVER (PARTITION BY tenant, target_id, name, source, evaluator ORDER BY id DESC) = 1;
