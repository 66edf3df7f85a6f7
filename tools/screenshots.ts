import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { run } from '#host/process/run.ts';
import { openBrowser } from '../test/dashboard/browser.ts';

/** Time for which the plots of a page grow before its picture. */
const plotMs = 90_000;
const timeoutMs = 300_000;

const pod = (name: string, tier: string, script: string, more = '') => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop, labels: { app: shop, tier: ${tier} } }
spec:
  terminationGracePeriodSeconds: 1
  # For a trouble that is seen, at an address that documentation may show.
  dnsPolicy: None
  dnsConfig: { nameservers: [192.0.2.53] }
  containers:
    - name: main
      image: localhost/podvm/base:latest
      command: [sh, -c, ${JSON.stringify(script)}]
      resources: { limits: { memory: 128Mi, cpu: "1" } }${more}
---`;

const working = (words: string, pause: number) =>
  `i=0; while :; do i=$((i+1)); echo "$(date +%T) ${words} $i"; n=0; while [ $n -lt $((i % 7 * 900)) ]; do n=$((n+1)); done; sleep ${pause}; done`;

const pods = [
  pod(
    'web',
    'front',
    working('answered request', 0.4),
    '\n    - { name: exporter, image: localhost/podvm/base:latest, command: [sleep, "1000000"] }',
  ),
  pod('cache', 'front', working('evicted', 1)),
  pod('orders', 'back', working('wrote order', 0.7)),
  pod('mail', 'back', 'sleep 3; echo no route to the mail server >&2; exit 1'),
].join('');

const names = ['web', 'cache', 'orders', 'mail'];

/** Makes the pictures of `docs/dashboard.md` from a real node with a few pods. */
export async function makeScreenshots(repo: string): Promise<void> {
  const podvm = join(repo, 'podvm');
  await run(podvm, ['run', '-d', '-'], { input: pods, env: process.env as Record<string, string>, timeoutMs }); // SAFE: Node's own environment has texts only
  const dashboard = spawn(podvm, ['dashboard'], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const [address] = (await once(dashboard.stdout, 'data')) as [Buffer]; // SAFE: what a stream without an encoding emits
    await using browser = await openBrowser();
    const { page } = browser;
    const url = address.toString().trim();
    const { origin } = new URL(url);
    const picture = (name: string) => page.screenshot({ path: join(repo, `docs/dashboard-${name}.png`) });
    await browser.look({ height: 740 });
    await page.goto(url);
    await delay(plotMs);
    await picture('node');
    await browser.look({ height: 320 });
    await page.goto(`${origin}/pods`);
    await delay(plotMs / 2); // processor use needs two measurements
    await picture('pods');
    await browser.look({ height: 800 });
    await page.goto(`${origin}/pods/shop/web`);
    await delay(plotMs);
    await picture('pod');
    await browser.look({ colorScheme: 'dark' });
    await page.goto(`${origin}/pods/shop/web?tab=terminal`);
    await page.locator('form button').click();
    await page.locator('.xterm-rows').getByText('#').first().waitFor();
    await page.keyboard.type('uname -r; nproc; free -m\n');
    await page.locator('.xterm-rows').getByText('Swap:').waitFor();
    await picture('terminal');
  } finally {
    dashboard.kill('SIGINT');
    await text(dashboard.stdout).catch(() => '');
    await run(podvm, ['rm', '--force', ...names.map((name) => `shop/${name}`)], {
      env: process.env as Record<string, string>,
      timeoutMs,
    }); // SAFE: as above
  }
}
