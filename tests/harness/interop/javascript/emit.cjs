// Sends events with the SDK's own emitter, and reads what comes back with its own decoder.
//
// In, as JSON: {"url": ..., "events": [{"mode": "binary" | "structured", "event": {...}}]}. A member "bytes" of an event
// becomes its data as an array of bytes. Out, as JSON, for each: what was sent, what came back, and the event that the
// SDK reads in it; or the error that the SDK raised.
"use strict";

const { CloudEvent, HTTP, Mode, emitterFor, httpTransport } = require("cloudevents");

async function exchange(url, { mode, event }) {
  const { bytes, ...attributes } = event;
  const made = {};
  const transport = async (message, options) => {
    // As Node writes them: each header as text, and a body of bytes as these bytes.
    const headers = Object.entries(message.headers).map(([name, value]) => [name, String(value)]);
    made.sent = { headers: Object.fromEntries(headers), body: Buffer.from(message.body).toString() };
    made.answer = await httpTransport(url)(message, options);
    return made.answer;
  };
  try {
    const data = bytes === undefined ? {} : { data: Uint8Array.from(Buffer.from(bytes)) };
    const emit = emitterFor(transport, { mode: mode === "binary" ? Mode.BINARY : Mode.STRUCTURED });
    await emit(new CloudEvent({ ...attributes, ...data }));
    if (HTTP.isEvent(made.answer)) {
      const read = HTTP.toEvent(made.answer);
      read.validate();
      made.read = read.toJSON();
    }
  } catch (error) {
    made.error = String(error.message);
  }
  return made;
}

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const { url, events } = JSON.parse(Buffer.concat(chunks).toString());
  const made = [];
  for (const event of events) made.push(await exchange(url, event));
  process.stdout.write(JSON.stringify(made));
}

main();
