// OpenAI's own client: files that are uploaded once and named by their ids.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { describe, it } from 'node:test';
import OpenAI, { toFile } from 'openai';
import * as support from './support.mjs';

const { caption, count, otherPng, png, question, root } = support;

describe('openai: files', support.suite, () => {
  const connect = (apiKey) => new OpenAI({ baseURL: support.baseURL, apiKey, maxRetries: 0 });
  const client = connect(randomBytes(24).toString('hex'));
  const upload = async (bytes = png) =>
    client.files.create({ file: await toFile(bytes, 'shapes.png', { type: 'image/png' }), purpose: 'vision' });

  it('uploads, shows and deletes a file', async () => {
    const file = await upload();
    assert.equal(file.object, 'file');
    assert.equal(file.bytes, png.length);
    assert.equal(file.filename, 'shapes.png');
    assert.equal(file.purpose, 'vision');
    assert.deepEqual((await client.files.retrieve(file.id)).id, file.id);
    const content = await client.files.content(file.id);
    assert.ok(Buffer.from(await content.arrayBuffer()).equals(png));
    const deleted = await client.files.delete(file.id);
    assert.deepEqual([deleted.id, deleted.deleted], [file.id, true]);
    await assert.rejects(client.files.retrieve(file.id), OpenAI.NotFoundError);
  });

  it('uploads a stream from a disk', async () => {
    const file = createReadStream(new URL('examples/circle-and-square.png', root));
    const made = await client.files.create({ file, purpose: 'user_data' });
    assert.equal(made.filename, 'circle-and-square.png');
    await client.files.delete(made.id);
  });

  it('lists files, page by page', async () => {
    const made = [await upload(), await upload(otherPng)].map((file) => file.id);
    const found = [];
    for await (const file of client.files.list({ limit: 1 })) found.push(file.id);
    for (const id of made) assert.equal(found.filter((one) => one === id).length, 1);
    for (const id of made) await client.files.delete(id);
  });

  it('asks about a file in a chat and in a response', async () => {
    const { id } = await upload();
    const byImage = { type: 'image_url', image_url: { file_id: id } };
    const byFile = { type: 'file', file: { file_id: id } };
    for (const part of [byImage, byFile]) {
      const messages = [{ role: 'user', content: [{ type: 'text', text: question }, part] }];
      const answer = await client.chat.completions.create({ model: 'moondream-2', messages });
      assert.equal(answer.choices[0].message.content, count);
    }
    const content = [{ type: 'input_image', file_id: id, detail: 'auto' }];
    const response = await client.responses.create({ model: 'blip-large', input: [{ role: 'user', content }] });
    assert.equal(response.output_text, caption);
    await client.files.delete(id);
  });

  it('is told about a file that is not there', async () => {
    const messages = [{ role: 'user', content: [{ type: 'file', file: { file_id: 'file-none' } }] }];
    await assert.rejects(client.chat.completions.create({ model: 'blip-large', messages }), (error) => {
      assert.ok(error.status === 400 || error.status === 404);
      assert.equal(error.param, 'messages[0].content[0].file.file_id');
      return true;
    });
    await assert.rejects(client.files.delete('file-none'), OpenAI.NotFoundError);
  });

  it('has files of its own key alone', async () => {
    const { id } = await upload();
    const other = connect(randomBytes(24).toString('hex'));
    await assert.rejects(other.files.retrieve(id), OpenAI.NotFoundError);
    assert.deepEqual((await other.files.list()).data, []);
    await client.files.delete(id);
  });

  it('is told that a file is no image', async () => {
    await assert.rejects(upload(Buffer.from('This is no image.')), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.code, 'invalid_image_format');
      return true;
    });
  });
});
