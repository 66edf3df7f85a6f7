import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '#host/clock.ts';
import { silentLog } from '#host/log/log.ts';
import { CountedImages } from '#image/image-counts.ts';
import { createFakeParts } from '#sandbox/testing/fake-parts.ts';
import { openSandboxes } from '#sandbox/sandboxes.ts';
import { MetricsPage } from './metrics-page.ts';

test('a page has the last facts of a disk that hangs, and asks it once', { timeout: 60_000 }, async () => {
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'podvm-metrics-'));
  undo.defer(() => rm(directory, { recursive: true }));
  const parts = createFakeParts(directory);
  const sandboxes = undo.use(await openSandboxes({ directory, parts, log: silentLog }, new AbortController().signal));
  let asked = 0;
  const madeAt = new Date(5000);
  sandboxes.templateMadeAt = () => {
    asked += 1;
    return asked === 1 ? Promise.resolve(madeAt) : new Promise(() => undefined); // then the disk hangs
  };
  const images = { counts: new CountedImages(), list: () => [] };
  const site = { directory, version: '1', clock: systemClock, log: silentLog };
  using page = new MetricsPage({ ...site, sandboxes, images });
  for (let times = 0; times < 4; times += 1)
    assert.match(await page.write('prometheus'), /^podvm_template_created_timestamp_seconds 5$/m);
  assert.equal(asked, 2);
});
