// `node vercel.mjs URL KEY SLOW_KEY WAY`: the conversation, held by Vercel's AI SDK.
// WAY is how applications reach an endpoint: chat, responses or compatible.
import { readFileSync } from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

const [baseURL, apiKey, slowKey, way] = process.argv.slice(2);
const { schema } = JSON.parse(readFileSync(new URL("conversation.json", import.meta.url)));

function made(apiKey, fields = {}) {
  const fetching = (url, init) => {
    const body = JSON.stringify({ ...JSON.parse(init.body), ...fields });
    return fetch(url, { ...init, body });
  };
  const told = { baseURL, apiKey, ...(Object.keys(fields).length && { fetch: fetching }) };
  if (way === "compatible")
    return createOpenAICompatible({
      name: "ratchet",
      includeUsage: true,
      supportsStructuredOutputs: true,
      ...told,
    });
  const openai = createOpenAI(told);
  return way === "chat" ? openai.chat : openai.responses;
}
const model = made(apiKey)("tiny");
const providerOptions = { openai: { store: false } };
const generate = (more) => generateText({ model, maxRetries: 0, providerOptions, ...more });
const stream = (more) =>
  streamText({ model, maxRetries: 0, providerOptions, onError: () => {}, ...more });
const tell = (step, what) => console.log(JSON.stringify({ step, ...what }));

const plain = await generate({ prompt: "Hello" });
tell("plain", {
  text: plain.text,
  finish: plain.finishReason,
  input_tokens: plain.usage.inputTokens,
  output_tokens: plain.usage.outputTokens,
  request_id: plain.response.headers["x-request-id"],
  header: plain.response.headers["x-request-id"],
});

const told = stream({ prompt: "Hello" });
const pieces = [];
for await (const piece of told.textStream) pieces.push(piece);
tell("stream", {
  text: pieces.join(""),
  finish: [await told.finishReason],
  usages: [(await told.usage).outputTokens],
  pieces: pieces.length,
});

const question = "How is the weather in Oslo?";
const weather = { description: "The weather.", inputSchema: jsonSchema(schema) };
const tools = { weather: tool(weather) };
for (const toolChoice of ["auto", "required", { type: "tool", toolName: "weather" }]) {
  const said = await generate({ prompt: question, tools, toolChoice });
  const [call] = said.toolCalls;
  tell("tool", { name: call.toolName, arguments: call.input });
  const [streamed] = await stream({ prompt: question, tools, toolChoice }).toolCalls;
  tell("tool streamed", { name: streamed.toolName, arguments: streamed.input });
}
const able = { weather: tool({ ...weather, execute: async () => "12 degrees" }) };
const after = await generate({ prompt: question, tools: able, stopWhen: stepCountIs(2) });
tell("tool result", { text: after.text, steps: after.steps.length });

const trip = await generate({
  prompt: "Where and when, as JSON?",
  output: Output.object({ schema: jsonSchema(schema) }),
});
tell("json", { value: trip.output });

if (way === "chat") {
  const asked = { openai: { logprobs: 2 } };
  const sure = await generate({ prompt: "Hello", maxOutputTokens: 3, providerOptions: asked });
  const content = sure.providerMetadata.openai.logprobs;
  tell("logprobs", {
    tokens: content.map((one) => one.token),
    logprobs: content.map((one) => one.logprob),
    tops: content.map((one) => one.top_logprobs.length),
  });
}

async function fails(step, more) {
  try {
    await generate({ prompt: "Hello", ...more });
    tell(step, { error: null });
  } catch (error) {
    tell(step, {
      error: APICallError.isInstance(error) ? "APICallError" : error.constructor.name,
      status: error.statusCode,
      message: error.message,
      retry_after: error.responseHeaders?.["retry-after"],
    });
  }
}
await fails("wrong key", { model: made("sk-ratchet-nobodys")("tiny") });
await fails("unknown model", { model: made(apiKey)("nobody") });
await fails("refused field", { model: made(apiKey, { prompt_logprobs: 1 })("tiny") });
const slow = made(slowKey)("tiny");
await generate({ prompt: "Hello", model: slow });
await fails("too fast", { model: slow });

const abort = new AbortController();
const song = stream({
  prompt: "Sing",
  maxOutputTokens: 3900,
  abortSignal: abort.signal,
  providerOptions: {}, // so that the log keeps what was said
});
let heard = "";
for await (const piece of song.textStream) {
  heard += piece;
  if (heard.length > 60) break;
}
abort.abort();
tell("cancelled", { heard });
