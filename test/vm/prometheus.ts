import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import { repo } from './cli-node.ts';

const answerSchema = v.object({
  status: v.literal('success'),
  data: v.object({
    result: v.array(v.object({ metric: v.record(v.string(), v.string()), value: v.tuple([v.number(), v.string()]) })),
  }),
});

/** A port of loopback that nothing listens on. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  assert.ok(typeof address === 'object' && address !== null);
  return address.port;
}

/** A real Prometheus that scrapes the node each second, with the rules of `deploy/`, or others. */
export async function openPrometheus(
  directory: string,
  target: string,
  rules: string = join(repo, 'deploy/prometheus-rules.yaml'),
) {
  await mkdir(directory);
  const port = await freePort();
  const config = join(directory, 'prometheus.yml');
  await writeFile(
    config,
    `global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [${rules}]
scrape_configs: [{ job_name: podvm, static_configs: [{ targets: ['${target}'] }] }]
`,
  );
  const child = spawn(
    'prometheus',
    [`--config.file=${config}`, `--storage.tsdb.path=${directory}/data`, `--web.listen-address=127.0.0.1:${port}`],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (log += text));
  const ended = once(child, 'close');
  const query = async (expression: string) => {
    const response = await fetch(`http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(expression)}`);
    const body = await response.text();
    assert.equal(response.status, 200, `${expression}: ${body}`);
    return v.parse(answerSchema, JSON.parse(body)).data.result;
  };
  return {
    query,
    /** The result of a query, once it has one. */
    async found(expression: string, withinMs = 60_000) {
      const deadline = AbortSignal.timeout(withinMs);
      for (;;) {
        const result = await query(expression).catch(() => []);
        if (result.length > 0) return result;
        if (deadline.aborted) throw new Error(`no result of ${expression}\n${log}`);
        await delay(200);
      }
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM');
      await ended;
    },
  };
}
