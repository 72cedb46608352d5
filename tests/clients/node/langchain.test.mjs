// LangChain's ChatOpenAI.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HumanMessage, SystemMessage } from '@langchain/core/messages';
import { tool } from '@langchain/core/tools';
import { ChatOpenAI } from '@langchain/openai';
import { z } from 'zod';
import * as support from './support.mjs';

const { between, caption, count, imagePart, labels, overloaded, png, question } = support;

const Shapes = z.object({ objects: z.array(z.object({ label: z.string(), box: z.array(z.number()) })) });

const chat = (model, options = {}, baseURL = support.baseURL) =>
  new ChatOpenAI({ model, apiKey: 'none', configuration: { baseURL }, ...options });

const human = (text, part = imagePart()) => new HumanMessage({ content: [{ type: 'text', text }, part] });

describe('@langchain/openai', support.suite, () => {
  it('invokes', async () => {
    const answer = await chat('blip-large').invoke([new SystemMessage('You look at images.'), human('Describe it.')]);
    assert.equal(answer.content, caption);
    assert.ok(answer.usage_metadata.total_tokens > 0);
    assert.equal(answer.response_metadata.finish_reason, 'stop');
  });

  it('takes an image as a part of its own kind', async () => {
    const content = [
      { type: 'text', text: question },
      { type: 'image', mimeType: 'image/png', data: png.toString('base64') },
    ];
    assert.equal((await chat('moondream-2').invoke([new HumanMessage({ contentBlocks: content })])).content, count);
  });

  it('streams', async () => {
    const chunks = [];
    for await (const chunk of await chat('blip-large').stream([human('Describe it.')])) chunks.push(chunk);
    const pieces = chunks.map((chunk) => chunk.content).filter(Boolean);
    assert.equal(pieces.join(''), caption);
    assert.ok(pieces.length > 1, 'the text comes in several pieces');
    assert.ok(chunks.at(-1).usage_metadata.total_tokens > 0);
  });

  it('asks several questions at a time', async () => {
    const answers = await chat('moondream-2').batch([[human(question)], [human('What color is the circle?')]]);
    assert.deepEqual(answers.map((answer) => answer.content), [count, 'red']);
  });

  it('writes an object by a schema, by default and in JSON mode', async () => {
    for (const options of [{}, { method: 'jsonSchema' }, { method: 'jsonMode' }]) {
      const structured = chat('florence-2-base').withStructuredOutput(Shapes, options);
      assert.deepEqual(labels((await structured.invoke([human('<OD>')])).objects), ['circle', 'square']);
    }
    const text = chat('moondream-2').withStructuredOutput(z.object({ text: z.string() }));
    assert.deepEqual(await text.invoke([human(question)]), { text: count });
  });

  it('is told that an object cannot come from a function call', async () => {
    const structured = chat('florence-2-base').withStructuredOutput(Shapes, { method: 'functionCalling' });
    await assert.rejects(structured.invoke([human('<OD>')]), /does not support tools/);
  });

  it('has the whole answer, its objects included, if it is asked for', async () => {
    const answer = await chat('florence-2-base', { __includeRawResponse: true }).invoke([human('<OD>')]);
    assert.deepEqual(labels(JSON.parse(answer.content).objects), ['circle', 'square']);
    const { grounding } = answer.additional_kwargs.__raw_response.choices[0].message;
    assert.deepEqual(labels(grounding.objects), ['circle', 'square']);
  });

  it('names a task with a field of its own, or behind the name of the model', async () => {
    const field = chat('florence-2-base', { modelKwargs: { task: 'detect' } });
    const suffix = chat('moondream-2:detect');
    for (const model of [field, suffix]) {
      const answer = await model.invoke([human('circle, square')]);
      assert.deepEqual(labels(JSON.parse(answer.content).objects), ['circle', 'square']);
    }
  });

  it('offers tools that are not used', async () => {
    const search = tool(async () => '', { name: 'search', description: 'Search.', schema: z.object({ query: z.string() }) });
    const answer = await chat('moondream-2').bindTools([search]).invoke([human(question)]);
    assert.equal(answer.content, count);
    assert.deepEqual(answer.tool_calls, []);
  });

  it('asks through the Responses API', async () => {
    const model = chat('moondream-2', { useResponsesApi: true });
    assert.equal((await model.invoke([human(question)])).text, count);
    let streamed = '';
    for await (const chunk of await model.stream([human(question)])) streamed += chunk.text;
    assert.equal(streamed, count);
    const structured = chat('florence-2-base', { useResponsesApi: true }).withStructuredOutput(Shapes);
    assert.deepEqual(labels((await structured.invoke([human('<OD>')])).objects), ['circle', 'square']);
  });

  it('sends a request again that found no room, and no other', async () => {
    const busy = await between(overloaded);
    assert.equal((await chat('moondream-2', {}, busy.baseURL).invoke([human(question)])).content, count);
    assert.equal(busy.bodies.length, 2);
    const wrong = await between();
    const refused = chat('gpt-5', {}, wrong.baseURL).invoke([human(question)]);
    await assert.rejects(refused, (error) => error.status === 404);
    assert.equal(wrong.bodies.length, 1);
  });

  it('is told about bytes that are no image', async () => {
    const refused = chat('blip-large').invoke([human('', imagePart(support.brokenUrl))]);
    await assert.rejects(refused, (error) => error.status === 400 && error.code === 'invalid_image_format');
  });

  it('has an image downloaded', support.download, async () => {
    const answer = await chat('blip-large').invoke([human('', imagePart(support.imageAddress))]);
    assert.equal(answer.content, caption);
  });
});
