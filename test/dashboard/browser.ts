import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import axe from 'axe-core';
import { type BrowserContext, chromium, type Page } from 'playwright-core';

/** Debian's Chromium, which test set-up installs. */
const executablePath = '/usr/bin/chromium';

const flags = [
  '--no-sandbox', // a test is root
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export interface Look {
  readonly colorScheme?: 'dark' | 'light';
  readonly width?: number;
  readonly height?: number;
}

/** A real browser with an empty profile. */
export interface Browser extends AsyncDisposable {
  readonly page: Page;
  /**
   * Errors, refusals of the content security policy and requests to other hosts, of all pages so far but those of pods,
   * whose hosts end with `.localhost`.
   */
  readonly complaints: readonly string[];
  look(look: Look): Promise<void>;
}

export async function openBrowser({ colorScheme = 'light', width = 1280, height = 800 }: Look = {}): Promise<Browser> {
  const profile = await mkdtemp(join(tmpdir(), 'podvm-browser-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath,
    headless: true,
    args: flags,
    colorScheme,
    viewport: { width, height },
    reducedMotion: 'reduce',
  });
  const complaints: string[] = [];
  watch(context, complaints);
  const page = context.pages()[0] ?? (await context.newPage());
  context.setDefaultTimeout(120_000); // a busy machine starts a browser in half a minute
  return {
    page,
    complaints,
    async look({ colorScheme: scheme = 'light', width: wide = 1280, height: high = 800 }) {
      await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
      await page.setViewportSize({ width: wide, height: high });
    },
    async [Symbol.asyncDispose]() {
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}

const isOfPod = (url: string): boolean => URL.parse(url)?.hostname.endsWith('.localhost') === true;

function watch(context: BrowserContext, complaints: string[]): void {
  context.on('console', (message) => {
    if (isOfPod(message.page()?.url() ?? '')) return;
    const isAnswer = message.text().startsWith('Failed to load resource'); // a refusal, which the page shows itself
    if (!isAnswer && ['error', 'warning'].includes(message.type())) complaints.push(message.text());
  });
  context.on('weberror', (error) => complaints.push(String(error.error())));
  context.on('dialog', (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  context.on('request', (request) => {
    const { hostname } = new URL(request.url());
    if (hostname !== '127.0.0.1' && hostname !== '' && !isOfPod(request.url()))
      complaints.push(`request to ${request.url()}`);
  });
}

/** Asserts that axe finds no violation in the page as it is. */
export async function assertAccessible(page: Page, what: string): Promise<void> {
  await page.evaluate(axe.source); // by the debugger: the pages' content security policy refuses other scripts
  const found = await page.evaluate<string[]>(
    `axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.flatMap(({ id, nodes }) =>
      nodes.map(({ html, failureSummary }) => id + ': ' + html.slice(0, 200) + ' ' + failureSummary)))`,
  );
  assert.deepEqual(found, [], what);
}
