// OpenAI's own client: the Responses API, whole and streamed.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import OpenAI from 'openai';
import { zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import * as support from './support.mjs';

const { caption, count, dataUrl, labels, otherPng, question } = support;

const Shapes = z.object({ objects: z.array(z.object({ label: z.string(), box: z.array(z.number()) })) });

/** The events of a streamed text, without those that come once for each piece. */
const EVENTS = [
  'response.created',
  'response.in_progress',
  'response.output_item.added',
  'response.content_part.added',
  'response.output_text.done',
  'response.content_part.done',
  'response.output_item.done',
  'response.completed',
];

/** The input of one message: the image, and text before it if there is any. */
function input(text, image_url = dataUrl()) {
  const image = { type: 'input_image', image_url, detail: 'auto' };
  return [{ role: 'user', content: [...(text ? [{ type: 'input_text', text }] : []), image] }];
}

/** The message of a response. */
const message = (response) => response.output.find((item) => item.type === 'message');

describe('openai: responses', support.suite, () => {
  const client = new OpenAI({ baseURL: support.baseURL, apiKey: 'none', maxRetries: 0 });
  const create = (model, given, more = {}) => client.responses.create({ model, input: given, ...more });

  it('captions an image', async () => {
    const response = await create('blip-large', input());
    assert.equal(response.output_text, caption);
    assert.equal(response.status, 'completed');
    assert.equal(response.error, null);
    assert.equal(response.usage.total_tokens, response.usage.input_tokens + response.usage.output_tokens);
    assert.match(response._request_id, /^req_/);
  });

  it('answers a question with instructions', async () => {
    const response = await create('moondream-2', input(question), { instructions: 'Be brief.', max_output_tokens: 20 });
    assert.equal(response.output_text, count);
  });

  it('has the objects beside the content of the message', async () => {
    for (const response of [
      await create('florence-2-base', input('<OD>')),
      await create('florence-2-base', input(), { task: 'detect' }),
    ]) {
      assert.deepEqual(labels(message(response).grounding.objects), ['circle', 'square']);
      assert.deepEqual(labels(JSON.parse(response.output_text).objects), ['circle', 'square']);
    }
  });

  it('says that an answer was cut', async () => {
    const response = await create('kosmos-2', input('Describe this image in detail:'), { max_output_tokens: 3 });
    assert.equal(response.status, 'incomplete');
    assert.equal(response.incomplete_details.reason, 'max_output_tokens');
  });

  it('takes the output of one response into the next request', async () => {
    const first = input(question);
    const answered = await create('moondream-2', first);
    const next = [...first, ...answered.output, { role: 'user', content: 'What color is the circle?' }];
    assert.equal((await create('moondream-2', next)).output_text, 'red');
    const other = [...first, ...answered.output, ...input(question, dataUrl(otherPng))];
    assert.equal((await create('moondream-2', other)).output_text, 'one');
  });

  it('refuses what would need a stored response', async () => {
    const refused = create('moondream-2', question, { previous_response_id: 'resp_1' });
    await assert.rejects(refused, (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.param, 'previous_response_id');
      return true;
    });
  });

  it('streams', async () => {
    const events = [];
    for await (const event of await create('blip-large', input(), { stream: true })) events.push(event);
    const deltas = events.filter((event) => event.type === 'response.output_text.delta');
    assert.equal(deltas.map((event) => event.delta).join(''), caption);
    assert.ok(deltas.length > 1, 'the text comes in several pieces');
    assert.deepEqual(events.filter((event) => !deltas.includes(event)).map((event) => event.type), EVENTS);
    assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, index) => index));
    assert.ok(events.at(-1).response.usage.total_tokens > 0);
  });

  it('streams through the helper, which collects the response and its objects', async () => {
    const stream = client.responses.stream({ model: 'florence-2-base', input: input('<OD>') });
    let text = '';
    stream.on('response.output_text.delta', (event) => {
      text += event.delta;
    });
    const response = await stream.finalResponse();
    assert.equal(response.output_text, text);
    assert.deepEqual(labels(message(response).grounding.objects), ['circle', 'square']);
  });

  it('parses an answer by a Zod schema', async () => {
    const asked = { model: 'florence-2-base', input: input('<OD>'), text: { format: zodTextFormat(Shapes, 'shapes') } };
    assert.deepEqual(labels((await client.responses.parse(asked)).output_parsed.objects), ['circle', 'square']);
    const streamed = await client.responses.stream(asked).finalResponse();
    assert.deepEqual(labels(streamed.output_parsed.objects), ['circle', 'square']);
  });

  it('offers tools that are not used', async () => {
    const tool = { type: 'function', name: 'search', strict: false, parameters: { type: 'object', properties: {} } };
    assert.equal((await create('moondream-2', input(question), { tools: [tool] })).output_text, count);
    const refused = create('moondream-2', input(question), { tools: [tool], tool_choice: 'required' });
    await assert.rejects(refused, (error) => error.status === 400 && error.param === 'tool_choice');
  });

  it('names the fields of bad requests', async () => {
    const unread = create('blip-large', input('', support.brokenUrl));
    await assert.rejects(unread, (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.deepEqual([error.code, error.param], ['invalid_image_format', 'input[0].content[0].image_url']);
      return true;
    });
    await assert.rejects(create('gpt-5', input()), OpenAI.NotFoundError);
  });

  it('has an image downloaded', support.download, async () => {
    const response = await create('blip-large', input('', support.imageAddress));
    assert.equal(response.output_text, caption);
  });
});
