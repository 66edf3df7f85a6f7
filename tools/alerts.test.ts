import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import * as v from 'valibot';
import { parse } from 'yaml';
import { guestRows } from '../src/metrics/guest-metrics.ts';
import { machineMetrics } from '../src/metrics/machine-metrics.ts';
import { nodeMetrics } from '../src/metrics/node-metrics.ts';

const deploy = join(import.meta.dirname, '../deploy');
const names = new Set([
  ...guestRows.map(([name]) => name),
  ...Object.keys(machineMetrics),
  ...Object.keys(nodeMetrics),
]);
const isHere = spawnSync('promtool', ['--version']).status === 0;

const rulesSchema = v.object({
  groups: v.array(
    v.object({
      rules: v.array(v.object({ alert: v.optional(v.string()), record: v.optional(v.string()), expr: v.string() })),
    }),
  ),
});
const rules = async () =>
  v
    .parse(rulesSchema, parse(await readFile(join(deploy, 'prometheus-rules.yaml'), 'utf8')))
    .groups.flatMap((group) => group.rules);

/** Metrics that a text names and that no table has. */
const unknownIn = (text: string): readonly string[] =>
  [...text.matchAll(/\b(?:container|podvm|process|nodejs)_[a-z0-9_]+/g)]
    .map(([name]) => name.replace(/(?<=_seconds)_(?:bucket|sum|count)$/, ''))
    .filter((name) => !names.has(name) && !/^container_(?:fs_io|network_tcp|spec)_?$/.test(name));

test('rules, dashboard and the page on monitoring name metrics that exist', async () => {
  assert.deepEqual(unknownIn('rate(podvm_absent_total[5m])'), ['podvm_absent_total']);
  for (const { expr } of await rules()) assert.deepEqual(unknownIn(expr), [], expr);
  const dashboard = await readFile(join(deploy, 'grafana-dashboard.json'), 'utf8');
  assert.deepEqual(unknownIn(dashboard.replaceAll(/"(?:uid|query)": .*/g, '')), []);
});

test('each alert is explained in docs/monitoring.md, and no other', async () => {
  const page = await readFile(join(deploy, '../docs/monitoring.md'), 'utf8');
  const told = [...page.matchAll(/^\| `(Podvm[A-Za-z]+)` /gm)].map(([, name]) => name ?? '');
  const alerts = (await rules()).flatMap(({ alert }) => alert ?? []);
  assert.deepEqual([...told].sort(), [...alerts].sort());
});

test('each incident raises the alert that names its cause, and no other pod is named', { skip: !isHere }, () => {
  const { status, stdout, stderr } = spawnSync('promtool', ['test', 'rules', 'prometheus-rules.test.yaml'], {
    cwd: deploy,
    encoding: 'utf8',
  });
  assert.equal(status, 0, stdout + stderr);
});
