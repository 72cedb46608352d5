// The JavaScript examples run as they stand and print what the page says.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import * as support from './support.mjs';

const run = promisify(execFile);
const page = readFileSync(new URL('examples/README.md', support.root), 'utf8');

/** Where a copy of a script finds the packages that are installed here. */
const folder = new URL('node_modules/.examples/', import.meta.url);

describe('examples', support.suite, () => {
  it('detect.mjs', async () => {
    mkdirSync(folder, { recursive: true });
    const copy = new URL('detect.mjs', folder);
    copyFileSync(new URL('examples/detect.mjs', support.root), copy);
    const { stdout } = await run(process.execPath, [fileURLToPath(copy)], {
      cwd: support.root,
      env: { ...process.env, OPENAI_BASE_URL: support.baseURL },
    });
    const [, shown] = page.match(/node examples\/detect\.mjs\n```\n\nIt prints:\n\n```\n([^`]*)```/);
    assert.equal(stdout, shown);
  });
});
