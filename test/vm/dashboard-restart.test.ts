import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { poll } from '#host/wait.ts';
import { openBrowser } from '../dashboard/browser.ts';
import { openCliNode } from './cli-node.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();

const pod = `apiVersion: v1
kind: Pod
metadata: { name: web }
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: localhost/podvm/base:latest
      command: [sh, -c, 'i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.5; done']
`;

describe('the dashboard, while its node restarts', { skip, timeout: 600_000 }, () => {
  it('keeps the lines of a log shown, and follows it again when the next daemon has taken over the pod', async () => {
    await using node = await openCliNode({ isSetUp: true });
    const file = join(node.root, 'web.yaml');
    await writeFile(file, pod);
    const first = node.start(['daemon']);
    await first.shows(/ info serving /, 300_000);
    const started = await node.type(['run', '-d', file]);
    assert.equal(started.code, 0, started.stderr);
    const dashboard = node.start(['dashboard']);
    await dashboard.shows(/#token=\w+\n/, 120_000);
    await using browser = await openBrowser();
    const { page } = browser;
    await page.goto(dashboard.stdout().trim());
    await page.getByRole('heading', { name: 'Machines' }).waitFor();
    await page.goto(`${new URL(page.url()).origin}/pods/default/web?tab=logs`);
    const log = page.getByRole('log');
    const status = page.getByRole('status');
    await log.getByText(/tick 2$/m).waitFor();
    const last = async () => Number(/tick (\d+)\s*$/.exec((await log.textContent()) ?? '')?.[1] ?? 0);

    first.child.kill('SIGTERM');
    await first.ended;
    await status.getByText('waiting for the node').waitFor();
    const seen = await last();
    assert.ok(seen >= 2, 'what was shown stays');

    const next = node.start(['daemon']);
    await next.shows(/ info serving /, 300_000);
    await status.getByText('live').waitFor();
    const isAhead = async () => ((await last()) > seen ? true : undefined);
    assert.ok(await poll(isAhead, { everyMs: 200, signal: AbortSignal.timeout(120_000) }), 'new lines are shown');
    assert.deepEqual(browser.complaints, []);
    assert.equal((await node.type(['rm', '--force', 'web'])).code, 0);
  });
});
