import { spawnSync } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import * as v from 'valibot';
import { performanceDrawing } from '../bench/versus/drawing.ts';
import { performancePage } from '../bench/versus/page.ts';
import { resultSchema } from '../bench/versus/result.ts';
import { referencePages } from './reference/pages.ts';
import { formatCast, parseCast } from './terminal/cast.ts';
import { record, type Step } from './terminal/record.ts';
import { renderSvg } from './terminal/render-svg.ts';

/**
 * `npm run docs`: writes `docs/reference/`, `docs/performance.md` and its picture from `docs/performance.json`, and
 * `docs/terminal.svg` from the recording `docs/terminal.cast`. With `-- --record`, as root: makes that recording first, by
 * running these commands. With `-- --screenshots`, as root: makes the pictures of the dashboard from a real node.
 */
const steps: readonly Step[] = [
  { type: 'uname -r' },
  { type: './podvm run --rm localhost/podvm/base uname -r' },
  { type: './podvm run examples/web.yaml &>/dev/null &', until: './podvm ps | grep -q "web  *1/1  *Running"' },
  { type: './podvm ps' },
  { type: 'curl localhost:8080' },
  { type: './podvm exec web free -m' },
  { type: './podvm stop web' },
];

const repo = join(import.meta.dirname, '..');
const docs = join(repo, 'docs');
const { values } = parseArgs({
  options: { record: { type: 'boolean', default: false }, screenshots: { type: 'boolean', default: false } },
});

if (values.record) {
  const setUp = spawnSync(join(repo, 'podvm'), ['setup'], { cwd: repo, stdio: 'inherit' });
  if (setUp.status !== 0) process.exit(1);
  await writeFile(join(docs, 'terminal.cast'), formatCast(await record(steps, repo)));
}
await writeFile(
  join(docs, 'terminal.svg'),
  await renderSvg(parseCast(await readFile(join(docs, 'terminal.cast'), 'utf8'))),
);

if (values.screenshots) {
  const { makeScreenshots } = await import('./screenshots.ts'); // the other pages need no browser
  await makeScreenshots(repo);
}

await mkdir(join(docs, 'reference'), { recursive: true });
for (const [name, print] of Object.entries(referencePages)) {
  await writeFile(join(docs, 'reference', name), await print());
}

const measured = v.parse(resultSchema, JSON.parse(await readFile(join(docs, 'performance.json'), 'utf8')));
await writeFile(join(docs, 'performance.md'), await performancePage(measured));
await writeFile(join(docs, 'performance.svg'), performanceDrawing(measured));
