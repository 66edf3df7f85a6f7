import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { tracesOf } from '../leaks.ts';
import { type CliNode, openCliNode } from './cli-node.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();

const pod = (annotations = '{}') => `
apiVersion: v1
kind: Pod
metadata: {name: interrupted, annotations: ${annotations}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - name: it
      image: localhost/podvm/base:latest
      command: [sh, -c, 'echo up; exec sleep 1000000']
`;

/** Temporary directory of programs that podvm runs, instead of /tmp. */
const temporary = await mkdtemp(join(tmpdir(), 'podvm-interrupts-'));
process.env['TMPDIR'] = temporary;
after(() => rm(temporary, { recursive: true }));

describe('Ctrl-C of podvm run', { skip, timeout: 900_000 }, () => {
  let cli: CliNode;
  /** Files and parts of the node's network that remain after a run that was not cut short. */
  let usual: ReadonlySet<string>;
  const ids = new Set<string>();

  before(async () => {
    cli = await openCliNode({ isSetUp: true });
    const typed = cli.start(['run', '-'], pod());
    await until('the pod', async () => /up/.test(typed.stdout()));
    typed.child.kill('SIGINT');
    await typed.ended;
    usual = new Set([...(await files()), ...(await traces())]);
  });
  after(async () => {
    await cli[Symbol.asyncDispose]();
    assert.deepEqual(await tracesOf({ directory: cli.root, ids: [...ids] }), []);
  });

  const below = (...path: readonly string[]) => join(cli.root, ...path);
  const list = (...path: readonly string[]) => readdir(below(...path)).catch(() => []);
  const sandboxes = async (prefix: string) => {
    const found = await list('sandboxes');
    for (const id of found) ids.add(id);
    return found.filter((id) => id.startsWith(prefix));
  };
  const sizeOf = async (...path: readonly string[]) => (await stat(below(...path)).catch(() => undefined))?.size ?? 0;
  /** Files without parts of set-up and templates, which other commands rename when complete. */
  const files = async () => {
    const tops = (await readdir(cli.root)).filter((name) => !['parts', 'templates', 'probe'].includes(name));
    const found = await Promise.all(
      tops.map(async (top) =>
        (await readdir(below(top), { recursive: true }).catch(() => [])).map((name) => join(top, name)),
      ),
    );
    return [...tops, ...found.flat()];
  };
  const traces = async () =>
    (await tracesOf({ directory: cli.root, ids: [...ids] })).filter((line) => !line.startsWith('file '));
  const until = async (what: string, look: () => Promise<boolean>, isOver: () => boolean = () => false) => {
    for (const deadline = Date.now() + 120_000; !(await look()); await delay(2)) {
      assert.ok(Date.now() < deadline && !isOver(), `not seen: ${what}`);
      await sandboxes('');
    }
  };

  /** Runs the pod, ends it when `look` finds the moment, and checks the files and traces that are left. */
  const interruptAt = async (
    what: string,
    look: () => Promise<boolean>,
    manifest = pod(),
    options: readonly string[] = [],
  ) => {
    const typed = cli.start(['run', ...options, '-'], manifest);
    let isOver = false;
    void typed.ended.then(() => (isOver = true));
    await until(`${what}\n${typed.stderr()}`, look, () => isOver);
    typed.child.kill('SIGINT');
    const { code, stderr } = await typed.ended;
    assert.notEqual(code, 0, what); // exit code for the signal, or the pod's
    const now = [...(await files()), ...(await traces())];
    assert.deepEqual(
      now.filter((each) => !usual.has(each)),
      [],
      `left after ${what}:\n${stderr}`,
    );
    assert.deepEqual(await readdir(temporary), [], `temporary files left after ${what}`);
  };

  const templateMoments: readonly (readonly [string, (id: string) => Promise<boolean>])[] = [
    ['its directory', async (id) => (await list('sandboxes', id)).length > 0],
    ['its network', async (id) => (await readdir('/run/netns').catch(() => [])).some((name) => name.endsWith(id))],
    ['its VMM', async (id) => (await list('sandboxes', id, 'machine', 'sockets')).length > 0],
    ['its boot', async (id) => (await sizeOf('sandboxes', id, 'machine', 'console.log')) > 0],
    ['its freezing', async (id) => (await sizeOf('sandboxes', id, 'machine', 'state')) > 0],
  ];
  for (const [name, look] of templateMoments) {
    it(`leaves nothing while a template is made: ${name}`, async () => {
      await rm(below('templates'), { recursive: true });
      await mkdir(below('templates'), { mode: 0o711 });
      const seen = async () => {
        const [id] = await sandboxes('template-');
        return id !== undefined && (await look(id));
      };
      await interruptAt(name, seen);
    });
  }

  const imageMoments: readonly (readonly [string, () => Promise<boolean>])[] = [
    ['its directory', async () => (await list('images', 'work')).length > 0],
    ['the base image', async () => (await works('base-root')) || (await works('base.tar'))],
    ['the file system', async () => (await works('rootfs.erofs')) || (await list('images', 'rootfs')).length > 0],
  ];
  const works = async (file: string) => {
    for (const work of await list('images', 'work')) {
      const found = await readdir(below('images', 'work', work), { recursive: true }).catch(() => []);
      if (found.some((path) => path.endsWith(file))) return true;
    }
    return false;
  };
  for (const [name, look] of imageMoments) {
    it(`leaves nothing while an image is imported: ${name}`, async () => {
      await rm(below('images'), { recursive: true });
      await interruptAt(name, look);
    });
  }

  it('leaves nothing while a machine boots', async () => {
    const boots = pod('{podvm.dev/template: "off"}');
    const look = async () => {
      const [id] = await sandboxes('sb-');
      return id !== undefined && (await sizeOf('sandboxes', id, 'machine', 'console.log')) > 0;
    };
    await interruptAt('a boot', look, boots);
  });

  it('leaves nothing at any other moment, up to a running container with --rm', async () => {
    for (let ms = 0; ms < 4000; ms = Math.ceil(ms * 1.15) + 40) {
      const startedMs = Date.now();
      await interruptAt(`${ms} ms`, async () => Date.now() - startedMs >= ms, pod(), ['--rm']);
    }
  });
});
