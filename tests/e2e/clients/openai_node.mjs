// `node openai_node.mjs URL KEY SLOW_KEY`: the conversation, held by OpenAI's client for Node.
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [baseURL, apiKey, slowKey] = process.argv.slice(2);
const { schema } = JSON.parse(readFileSync(new URL("conversation.json", import.meta.url)));
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 60_000 });
const model = "tiny";

const tell = (step, what) => console.log(JSON.stringify({ step, ...what }));
const ask = (content) => [{ role: "user", content }];
const create = (body, as = client) => as.chat.completions.create({ model, ...body });

const ids = [];
for await (const one of client.models.list()) ids.push(one.id);
tell("models", { ids });

const raw = await create({ messages: ask("Hello") }).withResponse();
const plain = raw.data;
tell("plain", {
  text: plain.choices[0].message.content,
  finish: plain.choices[0].finish_reason,
  input_tokens: plain.usage.prompt_tokens,
  output_tokens: plain.usage.completion_tokens,
  request_id: plain._request_id,
  header: raw.response.headers.get("x-request-id"),
});

const metered = { stream: true, stream_options: { include_usage: true } };
const chunks = [];
for await (const chunk of await create({ messages: ask("Hello"), ...metered })) chunks.push(chunk);
const choices = chunks.flatMap((chunk) => chunk.choices);
tell("stream", {
  text: choices.map((choice) => choice.delta.content ?? "").join(""),
  finish: choices.map((choice) => choice.finish_reason).filter(Boolean),
  usages: chunks.filter((chunk) => chunk.usage).map((chunk) => chunk.usage.completion_tokens),
  pieces: chunks.length,
});
const usages = [];
for await (const chunk of await create({ messages: ask("Hello"), stream: true }))
  if (chunk.usage) usages.push(chunk.usage);
tell("unmetered stream", { usages });

const tools = [{ type: "function", function: { name: "weather", parameters: schema } }];
const question = ask("How is the weather in Oslo?");
const named = { type: "function", function: { name: "weather" } };
let said, call;
for (const tool_choice of ["auto", "required", named]) {
  const asked = { messages: question, tools, tool_choice };
  said = (await create(asked)).choices[0].message;
  [call] = said.tool_calls;
  tell("tool", { name: call.function.name, arguments: JSON.parse(call.function.arguments) });
  const told = await client.chat.completions.stream({ model, ...asked }).finalMessage();
  const [streamed] = told.tool_calls;
  tell("tool streamed", {
    name: streamed.function.name,
    arguments: JSON.parse(streamed.function.arguments),
  });
}
const result = { role: "tool", tool_call_id: call.id, content: "12 degrees" };
const after = await create({ messages: [...question, said, result], tools });
tell("tool result", { text: after.choices[0].message.content });

const Trip = z.object({ city: z.enum(["Oslo", "Rome"]), days: z.number().int().min(1).max(3) });
const trip = await client.chat.completions.parse({
  model,
  messages: ask("Where and when, as JSON?"),
  response_format: zodResponseFormat(Trip, "trip"),
});
tell("json", { value: trip.choices[0].message.parsed });

const sure = await create({
  messages: ask("Hello"),
  max_tokens: 3,
  logprobs: true,
  top_logprobs: 2,
});
const content = sure.choices[0].logprobs.content;
tell("logprobs", {
  tokens: content.map((one) => one.token),
  logprobs: content.map((one) => one.logprob),
  tops: content.map((one) => one.top_logprobs.length),
});
const twice = await create({ messages: ask("Hello"), n: 2 });
tell("choices", { texts: twice.choices.map((choice) => choice.message.content) });

const prompt = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n";
const text = await client.completions.create({ model, prompt, max_tokens: 40 });
tell("completion", { text: text.choices[0].text });
const response = await client.responses.create({ model, input: "Hello", store: false });
tell("response", { text: response.output_text, output_tokens: response.usage.output_tokens });
const events = client.responses.stream({ model, input: "Hello", store: false });
let last;
for await (const event of events) last = event.type;
tell("response streamed", { text: (await events.finalResponse()).output_text, last });

async function fails(step, asked) {
  try {
    await asked();
    tell(step, { error: null });
  } catch (error) {
    const { status, param, message } = error;
    const retry_after = error.headers?.get("retry-after");
    tell(step, { error: error.constructor.name, status, param, message, retry_after });
  }
}
const hello = { messages: ask("Hello") };
await fails("wrong key", () =>
  create(hello, client.withOptions({ apiKey: "sk-ratchet-nobodys" })),
);
await fails("unknown model", () => create({ ...hello, model: "nobody" }));
await fails("refused field", () => create({ ...hello, prompt_logprobs: 1 }));
await fails("no embeddings", () => client.embeddings.create({ model, input: "Hello" }));
const slow = client.withOptions({ apiKey: slowKey });
await create(hello, slow);
await fails("too fast", () => create(hello, slow));

let heard = "";
const song = await create({ messages: ask("Sing"), stream: true, max_tokens: 3900 });
for await (const chunk of song) {
  heard += chunk.choices[0].delta.content ?? "";
  if (heard.length > 60) break;
}
song.controller.abort();
tell("cancelled", { heard });
