// What all clients are asked about, where the system is, and a server between a client and the system.

import { readFileSync } from 'node:fs';
import http from 'node:http';
import { after } from 'node:test';

export const root = new URL('../../../', import.meta.url);
export const system = process.env.GIGAROUTER_URL;
export const baseURL = `${system}/v1`;

/** Options of every suite: a skip with its reason where no system runs, and a limit so that nothing hangs. */
export const suite = {
  skip: system ? false : 'needs a running system: GIGAROUTER_URL is not set',
  timeout: 240_000,
};

/** Options of a test that has the system download an image: the address of a web server with our images. */
export const webImages = process.env.GIGAROUTER_IMAGES_URL;
export const download = { skip: webImages ? false : 'needs a web server with the images: GIGAROUTER_IMAGES_URL is not set' };
export const imageAddress = `${webImages}/circle-and-square.png`;

export const png = readFileSync(new URL('examples/circle-and-square.png', root));
export const otherPng = readFileSync(new URL('docs/images/one-shape.png', root));
export const dataUrl = (bytes = png) => `data:image/png;base64,${bytes.toString('base64')}`;
export const brokenUrl = dataUrl(Buffer.from('This is no image.'));

export const caption = 'a red circle left of a blue square';
export const otherCaption = 'a green cross';
export const question = 'How many shapes are there?';
export const count = 'two';

/** The image as a part of a chat message. */
export const imagePart = (url = dataUrl()) => ({ type: 'image_url', image_url: { url } });

/** A chat of one message: the image, and text before it if there is any. */
export const ask = (text, url) => [
  { role: 'user', content: [...(text ? [{ type: 'text', text }] : []), imagePart(url)] },
];

/** The labels of objects, in alphabetical order. */
export const labels = (objects) => objects.map((one) => one.label).sort();

/** What the router says when a model has no room: the client should come again. */
export const overloaded = {
  status: 503,
  headers: { 'retry-after': '1' },
  error: { message: 'The model has no free places.', type: 'server_error', param: 'model', code: 'overloaded' },
};

/**
 * A server that passes requests on to the system, after it has answered as many of them itself as there are refusals.
 * It keeps the bodies that clients sent, and is closed when the tests of its suite have ended.
 */
export async function between(...refusals) {
  const bodies = [];
  const server = http.createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    bodies.push(parsed(body));
    const refusal = refusals.shift();
    if (refusal) {
      response.writeHead(refusal.status, { 'content-type': 'application/json', ...refusal.headers });
      response.end(JSON.stringify({ error: refusal.error }));
    } else passOn(request, body, response);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { baseURL: `http://127.0.0.1:${server.address().port}/v1`, bodies };
}

function passOn(request, body, response) {
  const headers = { ...request.headers, host: new URL(system).host };
  const onward = http.request(new URL(request.url, system), { method: request.method, headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  onward.on('error', () => response.destroy());
  onward.end(body);
}

function parsed(body) {
  try {
    return JSON.parse(body);
  } catch {
    return body;
  }
}
