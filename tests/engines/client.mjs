// The official Node client: `node client.mjs URL MODEL`; prints one JSON object.
import OpenAI from "openai";

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const ask = {
  model,
  messages: [{ role: "user", content: "say hello" }],
  temperature: 0,
  max_tokens: 8,
};

const whole = await client.chat.completions.create(ask);
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
let unknown = "accepted";
try {
  await client.chat.completions.create({ ...ask, model: "gpt-5" });
} catch (error) {
  unknown = `${error.constructor.name} ${error.status} ${error.code}`;
}
console.log(JSON.stringify({ whole: whole.choices[0].message.content, streamed, unknown }));
