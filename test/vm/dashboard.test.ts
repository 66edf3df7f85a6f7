import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type PodDetails, podDetailsSchema, type PodSummary } from '#api/pods.ts';
import { serveDashboard } from '#dashboard/serve-dashboard.ts';
import * as v from 'valibot';
import { familyCpuMs } from '../family-cpu.ts';
import { assertAccessible, type Browser, openBrowser } from '../dashboard/browser.ts';
import { type CliNode, openCliNode, type Typed } from './cli-node.ts';
import { poll } from '#host/wait.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const image = 'localhost/podvm/base:latest';
const attack = '<script>document.title="owned"</script><img src=x onerror="document.title=1">';
const sequences = String.raw`\033]0;owned\007\033]8;;http://example.org/\033\\link\033]8;;\033\\\033]52;c;b3duZWQ=\007`;

const pod = (name: string, script: string, more = '') => `
apiVersion: v1
kind: Pod
metadata: {name: ${name}, labels: {app: shop, part: ${name}}}
spec:
  terminationGracePeriodSeconds: 2
  restartPolicy: Never
  containers:
    - {name: main, image: ${image}, command: [sh, -c, ${JSON.stringify(script)}], resources: {limits: {memory: 96Mi}}}${more}
---`;
const ticking = `trap 'exit 0' TERM; i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.2; done`;
const hostile = `printf '%s' '${attack}' > /dev/termination-log; echo '${attack}'; printf '${sequences}'; echo end; exit 3`;

const hostileName = '<img src=x onerror=document.title=1>';
const mib = 2 ** 20;

/** A page of a pod that tries to reach the dashboard, and says how far it got in its title. */
const spying = (origin: string) => `<!doctype html><title></title><iframe src="${origin}/pods"></iframe><script>
addEventListener("load", async () => {
  const call = await fetch("${origin}/v1/pods", { credentials: "include" }).then(() => "call answered", () => "call refused");
  let frame = "frame empty";
  try { if (frames[0].document.body.childElementCount > 0) frame = "frame read"; } catch { }
  document.title = [localStorage.length === 0 ? "no token" : "token", opener === null ? "no opener" : "opener", call, frame].join(", ");
});</script>`;

const looks = [
  { colorScheme: 'light', width: 1280 },
  { colorScheme: 'dark', width: 1280 },
  { colorScheme: 'light', width: 320 },
] as const;

describe('the dashboard, in a real browser', { skip, timeout: 600_000 }, () => {
  let cli: CliNode;
  let browser: Browser;
  let dashboard: Typed;
  let origin: string;
  before(async () => {
    cli = await openCliNode({ isSetUp: true });
    // A node that a command serves ends with its last pod.
    const all = `${pod('keeper', 'sleep 1000000')}${pod('web', ticking)}${pod('hostile', hostile)}`;
    const pods = cli.start(['run', '--network', 'none', '-'], all);
    await pods.shows(/tick 1$/m, 300_000);
    await pods.shows(/end/, 120_000);
    dashboard = cli.start(['dashboard']);
    await dashboard.shows(/#token=\w+\n/, 120_000);
    browser = await openBrowser();
    await browser.page.goto(dashboard.stdout().trim());
    await browser.page.getByRole('heading', { name: 'Machines' }).waitFor();
    assert.doesNotMatch(browser.page.url(), /token/);
    origin = new URL(browser.page.url()).origin;
  });
  after(async () => {
    await browser?.[Symbol.asyncDispose]();
    await cli[Symbol.asyncDispose]();
  });
  const inspect = async (name: string): Promise<PodDetails> =>
    v.parse(podDetailsSchema, JSON.parse((await cli.type(['inspect', name])).stdout));

  it('lists the pods like `podvm ps`, and finds them by any field; the URL has the search', async () => {
    const { page } = browser;
    await page.getByRole('link', { name: 'Pods' }).click();
    const row = page.getByRole('row').filter({ hasText: 'default/web' });
    await row.waitFor();
    assert.match(await row.innerText(), /Running\s+1\/1\s+0\s/);
    await page.getByRole('searchbox').fill('part=web running');
    await page.getByText('1 of 2 pods').waitFor();
    assert.equal(new URL(page.url()).searchParams.get('q'), 'part=web running');
    await page.getByRole('searchbox').fill('absent');
    await page.getByText('No pod has these words.').waitFor();
    await page.goto(`${origin}/pods?ended=true&sort=-status&q=shop`);
    await page.getByRole('row').filter({ hasText: 'default/hostile' }).waitFor();
    const names = await page.locator('tbody a').allInnerTexts();
    assert.deepEqual(names, ['default/keeper', 'default/web', 'default/hostile']); // Running, Error (3)
    await page.getByRole('link', { name: 'Status' }).click();
    assert.equal(new URL(page.url()).searchParams.get('sort'), 'status');
    assert.deepEqual(await page.locator('tbody a').allInnerTexts(), [
      'default/hostile',
      'default/keeper',
      'default/web',
    ]);
  });

  it('shows the figures of a pod that `podvm inspect` has', async () => {
    const { page } = browser;
    await page.goto(`${origin}/pods/default/web`);
    const card = (name: string) =>
      page.locator('section.card').filter({ has: page.getByRole('heading', { name, exact: true }) });
    const memory = card('Memory');
    const figure = (name: string) => memory.locator('.figure').filter({ hasText: name }).locator('.value').innerText();
    await memory.waitFor();
    const details = await inspect('web');
    const text = await card('Machine, jail and labels').innerText();
    for (const known of [
      details.sandbox?.id,
      String(details.sandbox?.jail?.uid),
      details.sandbox?.parts.kernel,
      'complete',
    ])
      assert.ok(known !== undefined && text.includes(known), `${known} in ${text}`);
    const [value, unit] = (await figure('Pod')).split(' ');
    assert.equal(unit, 'MiB');
    const real = (details.sandbox?.stats?.memoryBytes ?? 0) / 1024 / 1024;
    assert.ok(Math.abs(Number(value) - real) < 0.3 * real, `${value} MiB, but inspect has ${real}`);
    await page.getByText('agent answered').first().waitFor();
    assert.ok((await page.locator('.plot canvas').count()) >= 2);
  });

  it('follows logs, and searches them', async () => {
    const { page } = browser;
    await page.getByRole('link', { name: 'Logs' }).click();
    const log = page.getByRole('log');
    await log.getByText(/tick 3$/m).waitFor();
    const last = async () => Number(/tick (\d+)\s*$/.exec((await log.textContent()) ?? '')?.[1] ?? 0);
    const seen = await last();
    const deadline = AbortSignal.timeout(60_000);
    while ((await last()) <= seen) deadline.throwIfAborted();
    await page.getByRole('searchbox').fill('tick 2');
    await page.getByText(/^\d+ of \d+ lines/).waitFor();
    assert.match((await log.textContent()) ?? '', /^(?:tick 2\d*\s*)+$/);
  });

  it('has a terminal', async () => {
    const { page } = browser;
    await page.getByRole('link', { name: 'Terminal' }).click();
    await page.getByRole('button', { name: 'Start', exact: true }).last().click();
    const rows = page.locator('.xterm-rows');
    await rows.getByText('#').first().waitFor();
    const title = await page.title();
    await page.keyboard.type(`printf '${sequences}\\n'; echo $((6 * 7)) of 42; stty size\n`);
    await rows.getByText(/^42 of 42/).waitFor();
    await rows
      .getByText(/^\d+ \d+/)
      .first()
      .waitFor();
    const [, lines = '', columns = ''] = /\n(\d+) (\d+)/.exec(await rows.innerText()) ?? [];
    assert.ok(Number(lines) > 10 && Number(columns) > 80, `${lines} lines, ${columns} columns`);
    assert.equal(await page.title(), title);
    assert.equal(await rows.locator('a').count(), 0);
    await page.keyboard.type('exit 7\n');
    await page.getByText('Ended with exit code 7').waitFor();
  });

  it('shows files of a container, and saves them; names and contents of a hostile one do nothing', async () => {
    const { page } = browser;
    const put = `mkdir -p /www/below; printf '%s' '${attack}' >'/www/${hostileName}'; head -c 300000 /dev/zero >/www/zeros`;
    assert.equal((await cli.type(['exec', 'web', '--', 'sh', '-c', put])).code, 0);
    await page.goto(`${origin}/pods/default/web`);
    await page.getByRole('link', { name: 'Files' }).click();
    await page.getByRole('link', { name: 'www/', exact: true }).click();
    await page.getByText('3 entries').waitFor();
    assert.deepEqual(await page.locator('.files tbody a').allInnerTexts(), ['below/', hostileName, 'zeros']);
    assert.equal(await page.locator('.files tbody img').count(), 0);
    assert.match(
      await page.getByRole('row').filter({ hasText: 'zeros' }).innerText(),
      /293 KiB\s+\d+[sm]\s+-rw-r--r--/,
    );
    await page.getByRole('link', { name: hostileName }).click();
    const content = page.getByRole('region', { name: 'Content of the file' });
    assert.equal(await content.innerText(), attack);
    assert.equal(await content.locator('*').count(), 0);
    assert.equal(new URL(page.url()).searchParams.get('file'), `/www/${hostileName}`);
    const saved = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Download' }).click();
    assert.equal(await readFile(await (await saved).path(), 'utf8'), attack);
    await page.goBack();
    await page.getByRole('link', { name: 'zeros' }).click();
    await page.getByText('This file is not text.').waitFor();
    await page.getByText('The first 256 KiB').waitFor();
    const path = page.getByRole('textbox', { name: 'Path' });
    await page.goto(`${origin}/pods/default/web?tab=files&file=/dev/zero`);
    await page.getByText('Cannot read it: /dev/zero is not a file with content').waitFor();
    await path.fill('/absent/../proc');
    await path.press('Enter');
    await page.getByRole('link', { name: 'self/', exact: true }).waitFor();
    assert.equal(await page.title(), 'default/web – PodVM');
  });

  it('opens a port of a pod under an origin of its own, from which the pod reaches nothing of the dashboard', async () => {
    const { page } = browser;
    const serve = `printf '%s' '${spying(origin)}' >/www/index.html; httpd -p 127.0.0.1:8080 -h /www`;
    assert.equal((await cli.type(['exec', 'web', '--', 'sh', '-c', serve])).code, 0);
    await page.goto(`${origin}/pods/default/web?tab=ports`);
    await page.getByRole('spinbutton', { name: 'Port in the pod' }).fill('8080');
    await page.getByRole('button', { name: 'Make a link' }).click();
    const opened = page.context().waitForEvent('page');
    await page.getByRole('link', { name: 'Open port 8080 in a new tab' }).click();
    const tab = await opened;
    await tab.waitForFunction('document.title !== ""');
    assert.match(new URL(tab.url()).hostname, /^[0-9a-f]{40}\.localhost$/);
    assert.equal(await tab.title(), 'no token, no opener, call refused, frame empty');
    await tab.close();
    assert.match(await page.locator('.command').innerText(), /^podvm port-forward default\/web :8080$/);
    assert.equal(await page.title(), 'default/web – PodVM');
  });

  it('shows the YAML of a pod, resizes it in place, and examines it', async () => {
    const { page } = browser;
    await page.goto(`${origin}/pods/default/web?tab=yaml`);
    const yaml = page.getByRole('region', { name: 'YAML of the pod' });
    assert.match(await yaml.innerText(), /^kind: Pod$/m);
    assert.match(await yaml.innerText(), /^ {6}limits:\n {8}memory: "?96Mi"?$/m);
    const limits = async () => {
      const { sandbox } = await inspect('web');
      return [sandbox?.stats?.containers[0]?.memoryLimitBytes, sandbox?.stats?.memoryLimitBytes].map(
        (it) => (it ?? 0) / mib,
      );
    };
    assert.deepEqual(await limits(), [96, 96]);
    await page.getByRole('button', { name: 'Resize', exact: true }).click();
    const dialog = page.getByRole('dialog');
    const memory = dialog.getByRole('spinbutton', { name: 'Memory limit, MiB' });
    const resize = dialog.getByRole('button', { name: 'Resize', exact: true });
    await assertAccessible(page, 'the form of a resize');
    await resize.click();
    await dialog.getByText('Cannot resize: neither field has a limit').waitFor();
    await memory.fill('128');
    await dialog.getByRole('spinbutton', { name: 'CPU limit, cores' }).fill('0.5');
    await resize.click();
    await dialog.waitFor({ state: 'detached' });
    assert.deepEqual(await limits(), [128, 128]);
    assert.match((await cli.type(['describe', 'web'])).stdout, /^ +main .* 0\.5 cores /m);
    await page.getByRole('link', { name: 'Overview' }).click();
    await page.getByText('Limits: memory 128Mi, cpu 500m').waitFor();
    await page.getByRole('button', { name: 'Examine again' }).click();
    await page
      .getByText(/^None: \d+ checks/)
      .or(page.locator('.troubles li'))
      .first()
      .waitFor();
  });

  it('shows the text of a hostile guest without interpreting it', async () => {
    const { page } = browser;
    await page.goto(`${origin}/pods/default/hostile`);
    await page.getByText('document.title="owned"').first().waitFor();
    assert.equal(await page.title(), 'default/hostile – PodVM');
    await page.getByRole('link', { name: 'Logs' }).click();
    const log = page.getByRole('log');
    await log.getByText('end').waitFor();
    assert.equal((await log.textContent())?.trim(), `${attack}\nlinkend`);
    assert.equal(await page.title(), 'default/hostile – PodVM');
    assert.equal(await page.locator('img').count(), 0);
    await page.getByRole('link', { name: 'Terminal' }).click();
    await page.getByText('Cannot run a command in hostile: the pod has ended').waitFor();
  });

  it('can be used by keyboard and screen reader, in dark and light, and on a small screen', async () => {
    const { page } = browser;
    const pages = ['/', '/pods?ended=true', '/images', '/volumes', '/pods/default/web'];
    const tabs = ['logs', 'terminal', 'files&path=/www', `files&file=/www/${hostileName}`, 'ports', 'yaml', 'details'];
    for (const path of [...pages, ...tabs.map((tab) => `/pods/default/web?tab=${tab}`)]) {
      await page.goto(origin + path);
      await page.getByRole('heading', { level: 1 }).waitFor();
      await page.locator('.card, .list, .stream, .text, .empty').first().waitFor();
      for (const look of looks) {
        await browser.look(look);
        await assertAccessible(page, `${path} ${JSON.stringify(look)}`);
        const width = await page.evaluate<number>('document.documentElement.scrollWidth');
        assert.ok(width <= look.width, `${path} is ${width} wide on a screen of ${look.width}`);
      }
      await browser.look({});
    }
  });

  it('stops a pod by a button, and explains a disabled button', async () => {
    const { page } = browser;
    await page.goto(`${origin}/pods/default/web`);
    const press = async (name: string) => {
      await page.getByRole('button', { name, exact: true }).focus();
      await page.keyboard.press('Enter');
    };
    await press('Remove');
    await page.getByText('Cannot remove web: the pod runs').waitFor();
    await press('Stop');
    await page.getByRole('dialog').getByRole('button', { name: 'Stop' }).click();
    await page.getByText('Completed').first().waitFor();
    assert.equal((await inspect('web')).exitCode, 0);
    await press('Stop');
    await page.getByText('Cannot stop web: the pod has ended').waitFor();
    await press('Remove');
    await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
    await page.getByRole('heading', { name: 'Pods' }).waitFor();
    assert.doesNotMatch((await cli.type(['ps', '-a'])).stdout, /web/);
  });

  it('loads nothing of other hosts, breaks no policy, and ends with Ctrl-C', async () => {
    assert.deepEqual(browser.complaints, []);
    dashboard.child.kill('SIGINT');
    assert.equal((await dashboard.ended).code, 0);
    await browser.page.goto('about:blank');
  });
});

describe('the dashboard of a node with many pods', { skip }, () => {
  it('scrolls through 500 of them, renders only visible ones, and is painted with less than a second of work', async () => {
    const pods = Array.from({ length: 500 }, (_, at): PodSummary => ({
      ...{
        namespace: 'many',
        name: `pod-${at}`,
        phase: 'Running',
        ready: '1/1',
        restarts: at,
        addresses: ['10.0.0.1'],
      },
      createdAt: new Date(0).toISOString(),
    }));
    await using undo = new AsyncDisposableStack();
    await using cli = await openCliNode({ isSetUp: false });
    const socketPath = join(cli.root, 'fake.sock');
    const admin = createServer(({ url = '' }, response) =>
      response.end(url.startsWith('/v1/pods') ? JSON.stringify(pods) : ''),
    );
    admin.listen(socketPath);
    await once(admin, 'listening');
    undo.defer(() => void admin.close());
    const dashboard = undo.use(await serveDashboard({ socketPath, port: 0 }));
    const { page } = undo.use(await openBrowser());
    await page.goto(dashboard.url.replace('/#', '/pods#'));
    await page.getByText('500 pods').waitFor();
    await page.getByRole('link', { name: 'many/pod-0', exact: true }).waitFor();
    assert.ok((await page.locator('tbody tr').count()) < 150);
    for (let at = 0; at < 20; at += 1) await page.mouse.wheel(0, 800);
    await page.getByRole('link', { name: 'many/pod-499', exact: true }).waitFor();
    assert.ok(await page.getByRole('link', { name: 'many/pod-499', exact: true }).isVisible());
    assert.equal(await page.getByRole('link', { name: 'many/pod-0', exact: true }).count(), 0);
    await page.getByRole('searchbox').fill('pod-77');
    await page.getByText('1 of 500 pods').waitFor();
    const paints: number[] = [];
    for (let times = 0; times < 5; times += 1) {
      const before = await familyCpuMs(process.pid); // of browser and server
      await page.reload({ waitUntil: 'commit' });
      // By evaluate() alone: waitForFunction() may need eval() in the page, which its policy forbids.
      const look = async () =>
        await page.evaluate<number | undefined>(`performance.getEntriesByName('first-contentful-paint')[0]?.startTime`);
      const painted = await poll(look, { everyMs: 50, signal: AbortSignal.timeout(120_000) });
      assert.ok(painted !== undefined, 'it is painted');
      paints.push((await familyCpuMs(process.pid)) - before);
    }
    // The least, in processor time: the time that passes is that of a busy machine's other work.
    assert.ok(Math.min(...paints) < 1000, `painted with ${paints.join(', ')} ms of work`);
  });
});
