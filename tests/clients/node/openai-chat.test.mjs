// OpenAI's own client: chat completions, whole and streamed, with typed answers.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import * as support from './support.mjs';

const { ask, caption, count, dataUrl, imagePart, labels, otherCaption, otherPng, question } = support;

const Shapes = z.object({ objects: z.array(z.object({ label: z.string(), box: z.array(z.number()) })) });

describe('openai: chat completions', support.suite, () => {
  const client = new OpenAI({ baseURL: support.baseURL, apiKey: 'none', maxRetries: 0 });
  const create = (model, messages, more = {}) => client.chat.completions.create({ model, messages, ...more });

  it('captions an image', async () => {
    const answer = await create('blip-large', ask());
    assert.equal(answer.choices[0].message.content, caption);
    assert.equal(answer.choices[0].finish_reason, 'stop');
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
    assert.match(answer._request_id, /^req_/);
    assert.equal(answer.x_gigarouter.request_id, answer._request_id);
  });

  it('answers a question', async () => {
    const answer = await create('moondream-2', ask(question));
    assert.equal(answer.choices[0].message.content, count);
  });

  it('has the objects beside the message, for a native prompt and for a task', async () => {
    const native = await create('florence-2-base', ask('<OD>'));
    const named = await create('florence-2-base', ask(), { task: 'detect' });
    for (const { choices } of [native, named]) {
      const { content, grounding } = choices[0].message;
      assert.deepEqual(labels(grounding.objects), ['circle', 'square']);
      assert.deepEqual(labels(JSON.parse(content).objects), ['circle', 'square']);
      const [left, , right] = grounding.objects.find((one) => one.label === 'circle').box_px;
      assert.ok(0 < left && left < right && right < 320, 'the circle is in the left half');
    }
  });

  it('takes a task behind the name of the model', async () => {
    const answer = await create('moondream-2:detect', ask('circle'));
    assert.deepEqual(labels(answer.choices[0].message.grounding.objects), ['circle']);
  });

  it('gives a text and the spans of its phrases', async () => {
    const { text, objects } = (await create('kosmos-2', ask('<grounding>An image of'))).choices[0].message.grounding;
    assert.match(text, /red circle/);
    const [start, end] = objects[0].spans[0];
    assert.equal(text.slice(start, end), objects[0].label);
  });

  it('answers for each of several images', async () => {
    const content = [imagePart(), imagePart(dataUrl(otherPng))];
    const answer = await create('blip-large', [{ role: 'user', content }]);
    assert.equal(answer.choices[0].message.content, `Image 1: ${caption}\nImage 2: ${otherCaption}`);
  });

  it('answers the last question of a conversation, about its newest image', async () => {
    const messages = [
      { role: 'system', content: 'You look at images.' },
      ...ask(question),
      { role: 'assistant', content: count },
      ...ask('Describe it.', dataUrl(otherPng)),
      { role: 'assistant', content: otherCaption },
      { role: 'user', content: question },
    ];
    assert.equal((await create('moondream-2', messages)).choices[0].message.content, 'one');
  });

  it('streams', async () => {
    const stream = await create('blip-large', ask(), { stream: true, stream_options: { include_usage: true } });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    const deltas = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.delta));
    assert.equal(deltas.map((delta) => delta.content ?? '').join(''), caption);
    assert.ok(deltas.filter((delta) => delta.content).length > 1, 'the text comes in several pieces');
    assert.deepEqual(deltas.map((delta) => delta.role).filter(Boolean), ['assistant']);
    assert.equal(deltas.filter((delta) => delta.grounding).length, 1);
    assert.ok(chunks.at(-1).usage.total_tokens > 0);
  });

  it('streams through the helper, which collects the answer and its objects', async () => {
    const run = client.chat.completions.stream({ model: 'florence-2-base', messages: ask('<OD>') });
    let text = '';
    run.on('content', (delta) => {
      text += delta;
    });
    const answer = await run.finalChatCompletion();
    assert.equal(answer.choices[0].message.content, text);
    assert.equal(answer.choices[0].finish_reason, 'stop');
    assert.deepEqual(labels(answer.choices[0].message.grounding.objects), ['circle', 'square']);
  });

  it('stops a stream that the program leaves', async () => {
    for await (const chunk of await create('kosmos-2', ask('Describe this image in detail:'), { stream: true })) {
      assert.ok(chunk.id);
      break;
    }
    assert.equal((await create('blip-large', ask())).choices[0].message.content, caption);
  });

  it('parses an answer by a Zod schema', async () => {
    const answer = await client.chat.completions.parse({
      model: 'florence-2-base',
      messages: ask('<OD>'),
      response_format: zodResponseFormat(Shapes, 'shapes'),
    });
    assert.deepEqual(labels(answer.choices[0].message.parsed.objects), ['circle', 'square']);
    assert.equal(answer.choices[0].message.parsed.objects[0].box.length, 4);
  });

  it('parses a text by a Zod schema', async () => {
    const answer = await client.chat.completions.parse({
      model: 'moondream-2',
      messages: ask(question),
      response_format: zodResponseFormat(z.object({ text: z.string() }), 'answer'),
    });
    assert.deepEqual(answer.choices[0].message.parsed, { text: count });
  });

  it('parses a stream by a Zod schema', async () => {
    const run = client.chat.completions.stream({
      model: 'florence-2-base',
      messages: ask('<OD>'),
      response_format: zodResponseFormat(Shapes, 'shapes'),
    });
    const answer = await run.finalChatCompletion();
    assert.deepEqual(labels(answer.choices[0].message.parsed.objects), ['circle', 'square']);
  });

  it('gives several answers', async () => {
    const answer = await create('kosmos-2', ask(), { n: 3, temperature: 1, seed: 5 });
    assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1, 2]);
    assert.ok(answer.choices.every((choice) => choice.message.content));
  });

  it('gives log-probabilities', async () => {
    const answer = await create('blip-large', ask(), { logprobs: true, top_logprobs: 2 });
    const tokens = answer.choices[0].logprobs.content;
    assert.equal(tokens.length, answer.usage.completion_tokens);
    assert.ok(tokens.every((token) => token.logprob <= 0 && token.top_logprobs.length === 2));
  });

  it('offers tools that are not used', async () => {
    const tool = { type: 'function', function: { name: 'search', parameters: { type: 'object', properties: {} } } };
    const answer = await create('moondream-2', ask(question), { tools: [tool], tool_choice: 'auto' });
    assert.equal(answer.choices[0].message.content, count);
    assert.ok(answer.x_gigarouter.ignored.includes('tools'));
  });

  it('runs tools, of which no model calls any', async () => {
    const tool = { type: 'function', function: { name: 'search', function: () => 'x', parse: JSON.parse, parameters: { type: 'object', properties: {} } } };
    const run = client.chat.completions.runTools({ model: 'moondream-2', messages: ask(question), tools: [tool] });
    assert.equal(await run.finalContent(), count);
  });

  it('has an image downloaded', support.download, async () => {
    const answer = await create('blip-large', ask('', support.imageAddress));
    assert.equal(answer.choices[0].message.content, caption);
  });

  it('lists models', async () => {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    for (const name of ['blip-large', 'florence-2-base', 'kosmos-2', 'moondream-2']) assert.ok(names.includes(name));
    assert.equal((await client.models.retrieve('moondream-2')).id, 'moondream-2');
  });
});
