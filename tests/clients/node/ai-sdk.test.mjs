// Vercel's AI SDK, with its provider for OpenAI (chat and, by default, the Responses API) and the one for compatible APIs.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, generateObject, generateText, Output, streamObject, streamText } from 'ai';
import { z } from 'zod';
import * as support from './support.mjs';

const { between, caption, count, dataUrl, labels, overloaded, png, question } = support;

const Shapes = z.object({ objects: z.array(z.object({ label: z.string(), box: z.array(z.number()) })) });

const compatible = (baseURL = support.baseURL) =>
  createOpenAICompatible({ name: 'gigarouter', baseURL, apiKey: 'none', supportsStructuredOutputs: true });
const openai = (baseURL = support.baseURL) => createOpenAI({ baseURL, apiKey: 'none' });

/** How each provider makes a model. */
const PROVIDERS = {
  '@ai-sdk/openai-compatible': (name, baseURL) => compatible(baseURL)(name),
  '@ai-sdk/openai, chat': (name, baseURL) => openai(baseURL).chat(name),
  '@ai-sdk/openai, responses (the default)': (name, baseURL) => openai(baseURL)(name),
};

const ask = (text, image = png) => [{ role: 'user', content: [{ type: 'text', text }, { type: 'image', image }] }];

/** The grounding object in the raw body of an answer of either API. */
const groundingOf = (body) =>
  (body.choices?.[0].message ?? body.output.find((item) => item.type === 'message')).grounding;

/** The grounding object in a raw chunk of a stream of either API, if it is there. */
const groundingIn = (chunk) => chunk.choices?.[0]?.delta?.grounding ?? (chunk.item ?? {}).grounding;

for (const [provider, model] of Object.entries(PROVIDERS)) {
  describe(`ai with ${provider}`, support.suite, () => {
    it('generates a text, and keeps the objects in the raw body alone', async () => {
      const answer = await generateText({
        model: model('kosmos-2'),
        messages: ask('<grounding>An image of'),
        include: { responseBody: true }, // from version 7 on; version 6 keeps the body unless told otherwise
      });
      assert.match(answer.text, /red circle/);
      assert.equal(answer.finishReason, 'stop');
      assert.ok(answer.usage.totalTokens > 0);
      assert.ok(groundingOf(answer.response.body).objects.length > 0);
    });

    it('streams an answer of several models without an error', async () => {
      const answer = streamText({ model: model('compare:caption'), messages: ask('') });
      for await (const part of answer.fullStream) assert.notEqual(part.type, 'error');
      assert.ok((await answer.text).length > 0);
    });

    it('takes an image as bytes, as base64 and as a data URL', async () => {
      for (const image of [png, new Uint8Array(png), png.toString('base64'), dataUrl(), new URL(dataUrl())]) {
        const answer = await generateText({ model: model('moondream-2'), messages: ask(question, image) });
        assert.equal(answer.text, count);
      }
    });

    it('takes an image as a file', async () => {
      const content = [
        { type: 'text', text: question },
        { type: 'file', data: png, mediaType: 'image/png' },
      ];
      const answer = await generateText({ model: model('moondream-2'), messages: [{ role: 'user', content }] });
      assert.equal(answer.text, count);
    });

    it('streams a text, and the objects in a raw chunk', async () => {
      const errors = [];
      const { fullStream } = streamText({
        model: model('blip-large'),
        messages: ask('Describe it.'),
        includeRawChunks: true,
        onError: ({ error }) => errors.push(error),
      });
      const parts = [];
      for await (const part of fullStream) parts.push(part);
      const pieces = parts.filter((part) => part.type === 'text-delta').map((part) => part.text);
      assert.deepEqual(errors, []);
      assert.equal(pieces.join(''), caption);
      assert.ok(pieces.length > 1, 'the text comes in several pieces');
      assert.equal(parts.at(-1).finishReason, 'stop');
      const raw = parts.filter((part) => part.type === 'raw').map((part) => part.rawValue);
      assert.equal(raw.filter(groundingIn).length, 1);
    });

    it('generates an object by a schema', async () => {
      const given = { model: model('florence-2-base'), messages: ask('<OD>') };
      const { object } = await generateObject({ ...given, schema: Shapes });
      assert.deepEqual(labels(object.objects), ['circle', 'square']);
      const { output } = await generateText({ ...given, output: Output.object({ schema: Shapes }) });
      assert.deepEqual(labels(output.objects), ['circle', 'square']);
      let last;
      for await (const part of streamObject({ ...given, schema: Shapes }).partialObjectStream) last = part;
      assert.deepEqual(labels(last.objects), ['circle', 'square']);
    });

    it('continues a conversation', async () => {
      const first = ask(question);
      const { response } = await generateText({ model: model('moondream-2'), messages: first });
      const next = [...first, ...response.messages, { role: 'user', content: 'What color is the circle?' }];
      const answer = await generateText({ model: model('moondream-2'), system: 'Be brief.', messages: next });
      assert.equal(answer.text, 'red');
    });

    it('sends a request again that found no room, and no other', async () => {
      const busy = await between(overloaded);
      const answer = await generateText({ model: model('moondream-2', busy.baseURL), messages: ask(question) });
      assert.equal(answer.text, count);
      assert.equal(busy.bodies.length, 2);
      const wrong = await between();
      await assert.rejects(generateText({ model: model('gpt-5', wrong.baseURL), messages: ask('') }), (error) => {
        assert.ok(APICallError.isInstance(error));
        assert.equal(error.statusCode, 404);
        assert.equal(error.data.error.code, 'model_not_found');
        return true;
      });
      assert.equal(wrong.bodies.length, 1);
    });

    it('names a task behind the name of the model', async () => {
      const answer = await generateText({ model: model('moondream-2:detect'), messages: ask('circle') });
      assert.deepEqual(labels(JSON.parse(answer.text).objects), ['circle']);
    });
  });
}

describe('ai: what its providers do in their own ways', support.suite, () => {
  it('names a task with a field of its own through the compatible provider', async () => {
    const providerOptions = { gigarouter: { task: { name: 'detect', labels: ['square'] } } };
    const answer = await generateText({ model: compatible()('moondream-2'), messages: ask(''), providerOptions });
    assert.deepEqual(labels(JSON.parse(answer.text).objects), ['square']);
  });

  it('generates an object in JSON mode, which the compatible provider uses unless told otherwise', async () => {
    const plain = createOpenAICompatible({ name: 'gigarouter', baseURL: support.baseURL, apiKey: 'none' });
    const { object } = await generateObject({
      model: plain('florence-2-base'),
      schema: Shapes,
      messages: ask('<OD>'),
    });
    assert.deepEqual(labels(object.objects), ['circle', 'square']);
  });

  it('names an uploaded file through the provider for OpenAI', async () => {
    const apiKey = randomBytes(24).toString('hex');
    const body = new FormData();
    body.append('purpose', 'vision');
    body.append('file', new Blob([png]), 'shapes.png');
    const headers = { authorization: `Bearer ${apiKey}` };
    const file = await (await fetch(`${support.baseURL}/files`, { method: 'POST', headers, body })).json();
    const model = createOpenAI({ baseURL: support.baseURL, apiKey })('moondream-2');
    const answer = await generateText({ model, messages: ask(question, file.id) });
    assert.equal(answer.text, count);
  });

  it('passes the URL of an image on through the provider for OpenAI', support.download, async () => {
    for (const model of [openai().chat('blip-large'), openai()('blip-large')]) {
      const answer = await generateText({ model, messages: ask('', new URL(support.imageAddress)) });
      assert.equal(answer.text, caption);
    }
  });
});
