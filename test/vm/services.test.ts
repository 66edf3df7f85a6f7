import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { poll } from '#host/wait.ts';
import { type CliNode, openCliNode, repo } from './cli-node.ts';
import { whyNoVm } from './node.ts';

const example = join(repo, 'examples/services.yaml');

describe('Services', { skip: await whyNoVm(), timeout: 600_000 }, () => {
  let cli: CliNode;
  before(async () => (cli = await openCliNode({ isSetUp: true, startsNode: true })));
  after(async () => {
    await cli.type(['uninstall']);
    await cli[Symbol.asyncDispose]();
  });

  it('of the example are reached by each form of their names, balanced, and by pods of other namespaces', async () => {
    const applied = await cli.type(['apply', '-f', example]);
    const all = [
      'Service default/pages',
      'Service default/peers',
      'Deployment default/pages',
      'StatefulSet default/peer',
    ];
    const said = (change: string) => all.map((object) => `${object} ${change}\n`);
    assert.deepEqual(applied.stdout.split(/(?<=\n)/).toSorted(), said('created').toSorted(), applied.stderr);
    assert.equal(applied.code, 0);
    assert.equal((await cli.type(['diff', '-f', example])).code, 0);
    const start = ['run', '-d', '--name', 'client', 'localhost/podvm/base', 'sleep', '10000'];
    assert.equal((await cli.type(start)).code, 0);
    const get = async (url: string) => await cli.type(['exec', 'client', '--', 'wget', '-qO-', '-T', '10', url]);
    const page = async (url: string) => {
      let last: { readonly stderr: string } | undefined;
      const found = await poll(
        async () => {
          const got = await get(url);
          last = got;
          return got.code === 0 ? got.stdout : undefined;
        },
        { everyMs: 500, signal: AbortSignal.timeout(120_000) },
      );
      assert.ok(found !== undefined, `${url}: ${last?.stderr}`);
      return found;
    };
    for (const name of ['pages', 'pages.default', 'pages.default.svc', 'pages.default.svc.cluster.local'])
      assert.match(await page(`http://${name}`), /^pages-[01]\n$/);
    const many = ['exec', 'client', '--', 'sh', '-c', 'for i in $(seq 30); do wget -qO- http://pages; done'];
    const seen = await poll(
      async () => {
        const { stdout } = await cli.type(many);
        return stdout.includes('pages-0\n') && stdout.includes('pages-1\n') ? true : undefined;
      },
      { everyMs: 500, signal: AbortSignal.timeout(150_000) },
    );
    assert.ok(seen, 'connections reach both pods');
    assert.equal(await page('http://peer-0.peers:8080'), 'peer-0\n');
    assert.equal(await page('http://peer-1.peers.default.svc.cluster.local:8080'), 'peer-1\n');
    assert.match(await page('http://peers:8080'), /^peer-[01]\n$/);
    assert.match((await get('http://nothing')).stderr, /bad address/);
    const other = ['run', '--rm', '-'];
    const elsewhere = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"far","namespace":"far"},"spec":{"restartPolicy":"Never",
      "containers":[{"name":"c","image":"localhost/podvm/base","command":["wget","-qO-","http://pages.default"]}]}}`;
    assert.match((await cli.type(other, elsewhere)).stdout, /^pages-[01]\n$/);
  });

  it('follow their pods, and refuse connections when none is ready', async () => {
    const text = await readFile(example, 'utf8');
    const none = await cli.type(['apply', '-f', '-'], text.replace('replicas: 2', 'replicas: 0'));
    assert.match(none.stdout, /Deployment default\/pages configured\n/, none.stderr);
    const refused = await poll(
      async () => {
        const { stderr } = await cli.type(['exec', 'client', '--', 'wget', '-qO-', '-T', '20', 'http://pages']);
        return stderr.includes('Connection refused') ? true : undefined;
      },
      { everyMs: 500, signal: AbortSignal.timeout(60_000) },
    );
    assert.ok(refused);
  });

  it('are removed by delete, with their server once no pod is left', async () => {
    const deleted = await cli.type(['delete', '-f', example]);
    assert.match(deleted.stdout, /Service default\/pages deleted\n/, deleted.stderr);
    const gone = await cli.type(['exec', 'client', '--', 'wget', '-qO-', '-T', '20', 'http://pages']);
    assert.match(gone.stderr, /bad address/);
    assert.equal((await cli.type(['rm', '-f', 'client'])).code, 0);
    const record = join(cli.root, 'network/services/dns.json');
    const ended = await poll(
      async () =>
        await readFile(record).then(
          () => undefined,
          () => true,
        ),
      {
        everyMs: 200,
        signal: AbortSignal.timeout(30_000),
      },
    );
    assert.ok(ended, 'the name server has ended');
  });
});
