import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { startSlowLine } from '../images/bad-registries.ts';
import { writeLayout } from '../images/layout-writer.ts';
import { startRegistry } from '../images/registry.ts';
import { type CliNode, openCliNode, repo } from './cli-node.ts';
import { whyNoVm } from './node.ts';

const layerBytes = 4_000_000;
/** A pull takes some fifteen seconds, in which `podvm run` looks six times. */
const bytesPerSecond = 250_000;
const repositories = ['pulled', 'run', 'plain', 'quiet'] as const;
const clearLine = '\r\u001b[K';

describe('a pull from a slow registry', { skip: await whyNoVm(), timeout: 300_000 }, () => {
  const owned = new AsyncDisposableStack();
  let cli: CliNode;
  let registry: string;
  let containers: string;
  before(async () => {
    cli = await openCliNode({ isSetUp: true });
    const real = owned.use(await startRegistry());
    for (const repository of repositories) {
      const content = randomBytes(layerBytes); // does not compress
      const layout = join(cli.root, repository);
      await writeLayout(layout, [{ layers: [[{ name: 'file', content }]] }]);
      await real.push(layout, `${repository}:1`);
    }
    const line = owned.use(await startSlowLine(real.name, bytesPerSecond));
    registry = line.name;
    containers = join(cli.root, 'containers');
    await mkdir(join(containers, 'certs.d'), { recursive: true });
    await writeFile(join(containers, 'policy.json'), '{"default":[{"type":"insecureAcceptAnything"}]}');
    await writeFile(join(containers, 'registries.conf'), `[[registry]]\nlocation = "${registry}"\ninsecure = true\n`);
  });
  after(async () => {
    await owned[Symbol.asyncDispose]();
    await cli[Symbol.asyncDispose]();
  });

  /** Types a line into a terminal of 80 columns. Returns what was written to it, and the exit code. */
  async function screenOf(words: string) {
    const env = { PODVM_ROOT: cli.root, PODVM_BACKGROUND: 'off', PODVM_POOL: '0', PODVM_CONTAINERS: containers };
    const line = `stty cols 80; exec ./podvm ${words}`;
    const child = spawn('script', ['-qec', line, '/dev/null'], {
      cwd: repo,
      env: { ...process.env, ...env, SHELL: '/bin/sh' },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    const screen = await text(child.stdout);
    return { screen, code: await ended };
  }

  /** The figures of megabytes of the lines that were shown one over the other. */
  function figuresOf(screen: string): readonly number[] {
    const shown = screen.split(clearLine);
    return shown.flatMap((line) => {
      const found = /^podvm: pulling \S+: (\d+) of 5 MB$/.exec(line);
      return found === null ? [] : [Number(found[1])];
    });
  }

  function assertMoves(figures: readonly number[], screen: string): void {
    assert.ok(new Set(figures).size >= 2, screen);
    assert.deepEqual(
      figures,
      figures.toSorted((a, b) => a - b),
      screen,
    );
  }

  it('shows on a terminal how far it is, in one line that is gone in the end', async () => {
    const { screen, code } = await screenOf(`image pull ${registry}/pulled:1`);
    assert.equal(code, 0, screen);
    assertMoves(figuresOf(screen), screen);
    assert.ok(screen.endsWith(`${clearLine}${registry}/pulled:1\r\n`), JSON.stringify(screen));
    assert.equal(screen.match(/\n/g)?.length, 1, JSON.stringify(screen));
  });

  it('shows the same while a pod of podvm run waits for its image', async () => {
    const { screen, code } = await screenOf(`run --rm ${registry}/run:1 no-such-program`);
    assert.equal(code, 127, screen);
    assertMoves(figuresOf(screen), screen);
    assert.match(screen, /no-such-program/);
  });

  it('is plain lines in a pipe, and silent with --quiet', async () => {
    const plain = await cli.type(['image', 'pull', '--insecure', `${registry}/plain:1`]);
    assert.deepEqual([plain.code, plain.stdout], [0, `${registry}/plain:1\n`], plain.stderr);
    const [first = '', ...lines] = plain.stderr.trimEnd().split('\n');
    assert.match(first, /^podvm: pulling \S+ \(1 layer, 5 MB\)$/);
    assertMoves(
      lines.flatMap((line) => /^podvm: pulling \S+: (\d+) of 5 MB$/.exec(line)?.slice(1).map(Number) ?? []),
      plain.stderr,
    );
    assert.ok(!plain.stderr.includes('\r'), plain.stderr);
    const quiet = await cli.type(['image', 'pull', '--insecure', '--quiet', `${registry}/quiet:1`]);
    assert.deepEqual([quiet.code, quiet.stdout, quiet.stderr], [0, `${registry}/quiet:1\n`, '']);
  });
});
