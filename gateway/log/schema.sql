-- The log. Names follow OpenTelemetry's GenAI conventions without their prefix; times are UTC, durations seconds.
-- No primary keys or indexes: zone maps over UUIDv7 serve point lookups, and DuckLake has neither.
-- Tables only grow, but for retention and erasure; the same statements run on DuckLake, without USING COMPRESSION.
CREATE TABLE IF NOT EXISTS invocations(
  id UUID NOT NULL,                                  -- UUIDv7 made by the gateway; the answer's id is chatcmpl-<hex of it>
  ts TIMESTAMP NOT NULL,                             -- request start
  ingest_ts TIMESTAMP NOT NULL,                      -- set by the ingester: the learner's watermark
  tenant VARCHAR NOT NULL,                           -- of the key
  key_id VARCHAR,                                    -- the key itself: whom its tokens and cost are put down to
  task VARCHAR NOT NULL,                             -- metadata.task, else the alias
  episode_id UUID NOT NULL,                          -- calls that belong together; else the id itself
  parent_id UUID,                                    -- the invocation this one follows from
  conversation_id VARCHAR,
  trace_id VARCHAR,                                  -- W3C trace context of the request
  span_id VARCHAR,
  operation_name VARCHAR NOT NULL,
  provider_name VARCHAR NOT NULL,
  origin VARCHAR NOT NULL,                           -- gateway, or the import it came by
  request_model VARCHAR NOT NULL,                    -- the alias, as the client wrote it
  response_model VARCHAR,
  response_id VARCHAR,
  engine VARCHAR,                                    -- which vLLM answered
  adapter VARCHAR,                                   -- <alias>--<digest[:12]>; NULL: the base answered
  arm VARCHAR,                                       -- incumbent, an arm's name, fallback, or shadow: nobody got that answer
  propensity DOUBLE,
  stream BOOLEAN,
  finish_reasons VARCHAR[],
  status SMALLINT,
  error_type VARCHAR,
  input_tokens INTEGER,                              -- those read from the engine's cache included
  output_tokens INTEGER,
  cache_read_input_tokens INTEGER,
  reasoning_output_tokens INTEGER,
  time_to_first_chunk DOUBLE,
  duration DOUBLE,
  cost DOUBLE,                                       -- in the currency of the configured prices
  subject_id VARCHAR,                                -- keyed hash of the end user: what erasure goes by
  train_ok BOOLEAN NOT NULL,                         -- consent at log time
  stored BOOLEAN NOT NULL,                           -- the client asked for `store`: it is among the stored completions
  prompt_hash VARCHAR,                               -- of messages and tools: equal prompts, equal hash
  tags MAP(VARCHAR, VARCHAR),                        -- the request's metadata
  verdicts JSON USING COMPRESSION zstd,              -- what guards said of it: [{guard, stage, action, reason, score}]
  schema_version SMALLINT NOT NULL,
  request JSON USING COMPRESSION zstd,               -- NULL once retention or erasure has taken the bodies
  response JSON USING COMPRESSION zstd);

CREATE TABLE IF NOT EXISTS feedback(
  id UUID NOT NULL,
  ts TIMESTAMP NOT NULL,
  ingest_ts TIMESTAMP NOT NULL,
  tenant VARCHAR NOT NULL,
  target VARCHAR NOT NULL,                           -- invocation | episode
  target_id UUID NOT NULL,
  name VARCHAR NOT NULL,                             -- a metric, or comment | demonstration | preference | reference
  origin VARCHAR NOT NULL,
  score_value DOUBLE,
  score_label VARCHAR,
  explanation VARCHAR USING COMPRESSION zstd,
  value JSON USING COMPRESSION zstd,                 -- demonstration: a message; preference: {preferred, rejected}; reference: any
  source VARCHAR NOT NULL,                           -- human | grader | judge | implicit | guard
  evaluator VARCHAR,
  error_type VARCHAR,
  tags MAP(VARCHAR, VARCHAR));

CREATE TABLE IF NOT EXISTS edits(                    -- of a stored completion's metadata: the newest counts
  id UUID NOT NULL,
  ts TIMESTAMP NOT NULL,
  ingest_ts TIMESTAMP NOT NULL,
  tenant VARCHAR NOT NULL,
  invocation_id UUID NOT NULL,
  tags MAP(VARCHAR, VARCHAR));

CREATE TABLE IF NOT EXISTS erasures(
  id UUID NOT NULL,
  ts TIMESTAMP NOT NULL,
  ingest_ts TIMESTAMP NOT NULL,
  tenant VARCHAR NOT NULL,
  scope VARCHAR NOT NULL,                            -- rows | bodies
  subject_id VARCHAR,
  invocation_id UUID,
  reason VARCHAR);

CREATE TABLE IF NOT EXISTS erased(                   -- which invocations an erasure took: lineage, and late feedback
  erasure_id UUID NOT NULL,
  invocation_id UUID NOT NULL,
  episode_id UUID NOT NULL,
  ts TIMESTAMP NOT NULL);

CREATE TABLE IF NOT EXISTS erasure_steps(            -- what has been done for an erasure
  erasure_id UUID NOT NULL,
  ts TIMESTAMP NOT NULL,
  step VARCHAR NOT NULL,                             -- deleted: no query sees it; removed: no file holds it
  invocations INTEGER NOT NULL,
  feedback INTEGER NOT NULL);

CREATE TABLE IF NOT EXISTS incidents(                -- what the log knows it lacks, or had to mend
  id UUID NOT NULL,
  ts TIMESTAMP NOT NULL,
  ingest_ts TIMESTAMP NOT NULL,
  kind VARCHAR NOT NULL,                             -- dropped | quarantined | healed
  n INTEGER NOT NULL,
  segment VARCHAR,
  at_byte BIGINT,
  detail VARCHAR);

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

-- What logs made by earlier versions lack.
ALTER TABLE invocations ADD COLUMN IF NOT EXISTS origin VARCHAR DEFAULT 'gateway';
ALTER TABLE invocations ADD COLUMN IF NOT EXISTS stored BOOLEAN DEFAULT false;
ALTER TABLE invocations ADD COLUMN IF NOT EXISTS key_id VARCHAR;
ALTER TABLE invocations ADD COLUMN IF NOT EXISTS verdicts JSON;
ALTER TABLE feedback ADD COLUMN IF NOT EXISTS origin VARCHAR DEFAULT 'gateway';

CREATE OR REPLACE VIEW feedback_current AS SELECT * FROM feedback
  QUALIFY row_number() OVER (PARTITION BY tenant, target, target_id, name, source, evaluator ORDER BY id DESC) = 1;

CREATE OR REPLACE VIEW episodes AS SELECT tenant, task, episode_id, min(ts) AS started, max(ts) AS ended,
  count(*) AS steps, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, sum(cost) AS cost,
  count(error_type) AS errors, arg_min(adapter, ts) AS adapter FROM invocations
  WHERE arm IS DISTINCT FROM 'shadow' GROUP BY ALL;
