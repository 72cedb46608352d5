// OpenAI's own client: which class an error has, and which requests are sent again.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import OpenAI from 'openai';
import * as support from './support.mjs';

const { ask, between, brokenUrl, caption, overloaded } = support;

const CAPTION = { model: 'blip-large', messages: ask() };
const IMAGE = 'messages[0].content[0].image_url.url';

/** Requests that cannot be answered, the class of the error, and its status, code and param. */
const REFUSED = [
  ['an unknown model', { ...CAPTION, model: 'gpt-5' }, OpenAI.NotFoundError, [404, 'model_not_found', 'model']],
  ['bytes that are no image', { ...CAPTION, messages: ask('', brokenUrl) }, OpenAI.BadRequestError, [400, 'invalid_image_format', IMAGE]],
  ['an address within the network', { ...CAPTION, messages: ask('', 'http://169.254.169.254/a.png') }, OpenAI.BadRequestError, [400, 'invalid_image_url', IMAGE]],
  ['a question without its image', { ...CAPTION, messages: [{ role: 'user', content: 'Hello' }] }, OpenAI.BadRequestError, [400, 'invalid_value', 'messages']],
  ['a task that the model lacks', { ...CAPTION, task: 'detect' }, OpenAI.BadRequestError, [400, 'unsupported_task', 'task']],
  ['a tool that must be called', { ...CAPTION, tool_choice: 'required' }, OpenAI.BadRequestError, [400, 'unsupported_parameter', 'tool_choice']],
  ['a schema that no answer fits', { ...CAPTION, response_format: { type: 'json_schema', json_schema: { name: 'a', schema: { type: 'object', properties: { price: { type: 'number' } }, required: ['price'] } } } }, OpenAI.BadRequestError, [400, 'unsupported_parameter', 'response_format']],
];

const refusal = (status, type, code, headers = {}, param = null) => ({
  status, headers, error: { message: 'No.', type, param, code },
});
const limited = refusal(429, 'requests', 'rate_limit_exceeded', { 'retry-after': '1', 'retry-after-ms': '50' });
const INVALID = 'invalid_request_error';

/** What accounts refuse, as the router does; the class of the error; and how often the client asks. */
const OF_ACCOUNTS = [
  ['no key', refusal(401, INVALID, null, { 'www-authenticate': 'Bearer' }), OpenAI.AuthenticationError, 1],
  ['a wrong key', refusal(401, INVALID, 'invalid_api_key', { 'www-authenticate': 'Bearer' }), OpenAI.AuthenticationError, 1],
  ['a model that its key does not allow', refusal(403, INVALID, 'model_not_allowed', {}, 'model'), OpenAI.PermissionDeniedError, 1],
  ['a budget that is spent', refusal(429, 'insufficient_quota', 'insufficient_quota', { 'x-should-retry': 'false' }), OpenAI.RateLimitError, 1],
  ['a limit that stays reached', limited, OpenAI.RateLimitError, 3],
  ['an idempotency key of another request', refusal(400, INVALID, 'idempotency_key_reused', { 'x-should-retry': 'false' }), OpenAI.BadRequestError, 1],
  ['accounts that do not answer', refusal(503, 'server_error', 'accounts_unavailable', { 'retry-after': '1' }), OpenAI.InternalServerError, 3],
];

describe('openai: errors and retries', support.suite, () => {
  const connect = (baseURL, options = {}) => new OpenAI({ baseURL, apiKey: 'none', ...options });

  for (const [what, body, kind, expected] of REFUSED) {
    it(`is told about ${what}, once`, async () => {
      const { baseURL, bodies } = await between();
      await assert.rejects(connect(baseURL).chat.completions.create(body), (error) => {
        assert.equal(error.constructor, kind);
        assert.deepEqual([error.status, error.code, error.param], expected);
        assert.equal(error.type, 'invalid_request_error');
        assert.match(error.requestID, /^req_/);
        return true;
      });
      assert.equal(bodies.length, 1, 'the same request would be refused again');
    });
  }

  it('is told so when it streams', async () => {
    const refused = connect(support.baseURL).chat.completions.create({ ...CAPTION, task: 'detect', stream: true });
    await assert.rejects(refused, OpenAI.BadRequestError);
  });

  it('is told about an unknown route', async () => {
    const refused = connect(support.baseURL).embeddings.create({ model: 'blip-large', input: 'a' });
    await assert.rejects(refused, (error) => error instanceof OpenAI.BadRequestError && error.code === 'unknown_url');
  });

  it('is told about a model that does not exist', async () => {
    await assert.rejects(connect(support.baseURL).models.retrieve('gpt-5'), OpenAI.NotFoundError);
  });

  it('sends a request again that found no room', async () => {
    const { baseURL, bodies } = await between(overloaded, overloaded);
    const answer = await connect(baseURL).chat.completions.create(CAPTION);
    assert.equal(answer.choices[0].message.content, caption);
    assert.equal(bodies.length, 3);
    assert.deepEqual(bodies[2], bodies[0]);
  });

  it('gives up after two more tries', async () => {
    const { baseURL, bodies } = await between(overloaded, overloaded, overloaded);
    await assert.rejects(connect(baseURL).chat.completions.create(CAPTION), (error) => {
      assert.equal(error.constructor, OpenAI.InternalServerError);
      assert.equal(error.code, 'overloaded');
      return true;
    });
    assert.equal(bodies.length, 3);
  });

  it('does not send again what it was told not to', async () => {
    const { baseURL, bodies } = await between({ ...overloaded, headers: { 'x-should-retry': 'false' } });
    await assert.rejects(connect(baseURL).chat.completions.create(CAPTION), OpenAI.InternalServerError);
    assert.equal(bodies.length, 1);
  });

  for (const [what, refusal, kind, times] of OF_ACCOUNTS) {
    it(`is told about ${what}${times > 1 ? ', after it has tried again' : ', once'}`, async () => {
      const { baseURL, bodies } = await between(...Array(3).fill(refusal));
      await assert.rejects(connect(baseURL).chat.completions.create(CAPTION), (error) => {
        assert.equal(error.constructor, kind);
        assert.deepEqual([error.status, error.code, error.type], [refusal.status, refusal.error.code, refusal.error.type]);
        return true;
      });
      assert.equal(bodies.length, times);
    });
  }

  it('waits as long as a limit says, and is then answered', async () => {
    const { baseURL, bodies } = await between(limited);
    const answer = await connect(baseURL).chat.completions.create(CAPTION);
    assert.equal(answer.choices[0].message.content, caption);
    assert.equal(bodies.length, 2);
  });

  it('gives up a request whose program has, and one that takes too long', async () => {
    const leaving = new AbortController();
    const left = connect(support.baseURL).chat.completions.create(CAPTION, { signal: leaving.signal });
    leaving.abort();
    await assert.rejects(left, OpenAI.APIUserAbortError);
    const hasty = connect(support.baseURL, { timeout: 1, maxRetries: 0 }).chat.completions.create(CAPTION);
    await assert.rejects(hasty, OpenAI.APIConnectionTimeoutError);
  });

  it('gets through a crowd of its own making', async () => {
    const many = { model: 'kosmos-2', messages: ask(), n: 8, temperature: 1, max_tokens: 8 };
    const alone = connect(support.baseURL, { apiKey: 'crowd', maxRetries: 0 });
    const outcomes = await Promise.allSettled(Array.from({ length: 16 }, () => alone.chat.completions.create(many)));
    const refused = outcomes.filter((outcome) => outcome.status === 'rejected').map((outcome) => outcome.reason);
    assert.ok(refused.length > 0, '16 requests of 8 places each are more than a model has');
    assert.ok(refused.length < 16, 'those that came first are answered');
    for (const error of refused) {
      assert.equal(error.constructor, OpenAI.InternalServerError);
      assert.equal(error.code, 'overloaded');
      assert.ok(Number(error.headers.get('retry-after')) > 0);
    }
    const patient = connect(support.baseURL, { apiKey: 'crowd', maxRetries: 60 });
    const answers = await Promise.all(Array.from({ length: 16 }, () => patient.chat.completions.create(many)));
    assert.ok(answers.every((answer) => answer.choices.length === 8));
  });
});
