// Finds the objects in an image, and prints their boxes in pixels.
//
// node examples/detect.mjs [IMAGE]
//
// Asks the server at OPENAI_BASE_URL, by default the one that `make serve` starts.

import { readFileSync } from 'node:fs';
import { extname } from 'node:path';
import OpenAI from 'openai';

const path = process.argv[2] ?? 'examples/circle-and-square.png';
const url = `data:image/${extname(path).slice(1)};base64,${readFileSync(path, 'base64')}`;

const client = new OpenAI({ baseURL: process.env.OPENAI_BASE_URL ?? 'http://127.0.0.1:8000/v1', apiKey: 'none' });
const answer = await client.chat.completions.create({
  model: 'florence-2-base',
  messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url } }] }],
  task: 'detect',
});
for (const found of answer.choices[0].message.grounding.objects) {
  console.log(found.label, found.box_px);
}
