import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { run } from '#host/process/run.ts';
import { tracesOf } from '../leaks.ts';
import { type CliNode, openCliNode, type Typed } from './cli-node.ts';
import { openWindow } from './cli-window.ts';
import { whyNoVm } from './node.ts';

const skip = await whyNoVm();
const image = 'localhost/podvm/base';
const ctrlC = '\u0003';

describe('podvm run with an image', { skip, timeout: 300_000 }, () => {
  let cli: CliNode;
  let serving: Typed;
  before(async () => {
    cli = await openCliNode({ isSetUp: true });
    // The others join it, and so start at once.
    const script = 'echo up; exec httpd -f -h /etc';
    serving = cli.start(['run', '--name', 'first', '-p', '127.0.0.1:18099:80', image, 'sh', '-c', script]);
    await serving.shows(/up\n/);
  });
  after(async () => {
    await cli[Symbol.asyncDispose]();
    assert.deepEqual(await tracesOf({ directory: cli.root, ids: [] }), []);
  });

  it("passes a command's arguments unchanged, and ends with its exit code", async () => {
    const { code, stdout } = await cli.type(['run', '--rm', image, 'sh', '-c', 'echo $(echo $0) $PATH; exit 3', '-v']);
    assert.equal(code, 3);
    assert.match(stdout, /^-v \/.*bin/);
  });

  it('applies its flags to the container', async () => {
    const data = join(cli.root, 'data');
    await writeFile(join(cli.root, 'env'), '# a comment\nONE=1\nTWO=2\n');
    const flags = [
      ...['--env-file', join(cli.root, 'env'), '-e', 'TWO=$(ONE) two', '-v', `${data}:/data`, '-v', '/fresh'],
      ...['--mount', 'type=tmpfs,target=/memory,tmpfs-size=1m', '-w', '/data', '-u', '7:8', '--hostname', 'box'],
      ...['--add-host', 'db:192.0.2.7', '--dns', '192.0.2.53', '--read-only', '--cap-drop', 'ALL', '-m', '64m'],
    ];
    const script =
      'echo $ONE $TWO; pwd; id -u; id -g; hostname; grep -c "192.0.2.7.*db" /etc/hosts; grep nameserver /etc/resolv.conf;' +
      'grep CapEff /proc/self/status; df -k /memory | tail -n 1 | grep -c " 1024 "; touch /x 2>&1 | grep -o Read-only';
    const { code, stdout, stderr } = await cli.type(['run', ...flags, image, 'sh', '-c', script]);
    const said = '1 $(ONE) two\n/data\n7\n8\nbox\n1\nnameserver 192.0.2.53\nCapEff:\t0000000000000000\n1\nRead-only\n';
    assert.equal(stdout, said, stderr);
    assert.equal(code, 0);
  });

  it('publishes ports, and uses the given name', async () => {
    const { stdout } = await run('curl', [
      '-fsS',
      '--retry',
      '20',
      '--retry-connrefused',
      'http://127.0.0.1:18099/hostname',
    ]);
    assert.equal(stdout, 'first\n');
    assert.match((await cli.type(['ps'])).stdout, /\ndefault +first +1\/1 +Running /);
  });

  it('runs what --dry-run prints, as a file', async () => {
    const words = ['-e', 'GREETING=from the flags', image, 'sh', '-c', 'echo "$GREETING"'];
    const { stdout: yaml } = await cli.type(['run', '--dry-run', '-o', 'yaml', ...words]);
    assert.deepEqual(await cli.type(['run', '--network', 'none', '-'], yaml), {
      code: 0,
      stdout: 'from the flags\n',
      stderr: '',
    });
  });

  it('-i passes standard input to its end', async () => {
    const many = 'x'.repeat(1024 * 1024);
    const counted = await cli.type(['run', '-i', '--network', 'none', image, 'wc', '-c'], many);
    assert.deepEqual(counted, { code: 0, stdout: `${many.length}\n`, stderr: '' });
  });

  it('does not read standard input without -i', async () => {
    const { code, stdout } = await cli.type(['run', '--network', 'none', image, 'cat'], 'unread');
    assert.deepEqual({ code, stdout }, { code: 0, stdout: '' });
  });

  it('-t without a terminal is refused only with -i', async () => {
    const refused = await cli.type(['run', '-it', image, 'true'], 'x');
    assert.equal(refused.code, 125);
    assert.match(refused.stderr, /^podvm: Cannot give the container a terminal: .*\n {2}fix: Omit -t/);
    assert.equal((await cli.type(['run', '-t', '--network', 'none', image, 'sh', '-c', 'test -t 1'])).code, 0);
  });

  it('-it passes the terminal’s size, keys and changes, and restores it', async () => {
    const podvm = `./podvm --root ${cli.root} run --rm -it --network none ${image}`;
    const states = `stty -g | sed "s/^/state /"`;
    await using window = openWindow(
      `tty; stty rows 33 cols 77; ${states}; ${podvm} sh -c "stty size; exec sh"; echo code $?; ${states}`,
    );
    const [, device = ''] = await window.shows(/(\/dev\/pts\/\d+)\r\n/);
    await window.shows(/33 77\r\n/); // as its first program sees it
    await window.shows(/\/ # /);
    await run('stty', ['-F', device, 'rows', '40', 'cols', '101']);
    window.type('until stty size | grep "40 101"; do sleep 0.1; done\r');
    await window.shows(/40 101\r\n/);
    // One program: a shell that is still starting `sleep` may swallow the signal.
    window.type('sh -c "echo asleep; exec sleep 1000"\r');
    await window.shows(/\r\nasleep\r\n/);
    window.type(ctrlC);
    window.type('echo code of sleep $?\r');
    await window.shows(/code of sleep 130\r\n/);
    window.type('exit 5\r');
    await window.shows(/code 5\r\n[^]*state .*\r\n/);
    const [first, second] = [...window.screen().matchAll(/state (.*)\r\n/g)].map(([, state]) => state);
    assert.equal(second, first);
  });

  it('-it restores the terminal when a signal ends podvm', async () => {
    const script = "trap 'exit 4' TERM; echo up; while :; do sleep 0.1; done";
    const podvm = `./podvm --root ${cli.root} run -it --network none ${image} sh -c "${script}"`;
    const states = `stty -g | sed "s/^/state /"`;
    await using window = openWindow(`${states}; sh -c 'echo pid $$; exec "$@"' - ${podvm}; echo code $?; ${states}`);
    const [, pid] = await window.shows(/pid (\d+)\r\n/);
    await window.shows(/up\r\n/);
    process.kill(Number(pid), 'SIGTERM');
    await window.shows(/podvm: stopping .*\r\n[^]*code 4\r\n[^]*state .*\r\n/);
    const [first, second] = [...window.screen().matchAll(/state (.*)\r\n/g)].map(([, state]) => state);
    assert.equal(second, first);
  });

  it('-it passes the terminal to the container again after its restart', async () => {
    const script = 'echo ask; read word; echo got $word; test $word = b';
    const flags = `run -it --restart on-failure --network none ${image}`;
    await using window = openWindow(`./podvm --root ${cli.root} ${flags} sh -c '${script}'; echo code $?`);
    await window.shows(/ask\r\n/);
    window.type('a\r');
    await window.shows(/got a\r\n[^]*ask\r\n/);
    window.type('b\r');
    await window.shows(/got b\r\n[^]*code 0\r\n/);
  });

  it('ends with the shell’s exit codes for a program that is missing or cannot run', async () => {
    assert.equal((await cli.type(['run', '--network', 'none', image, 'nosuch'])).code, 127);
    assert.equal((await cli.type(['run', '--network', 'none', image, '/etc/passwd'])).code, 126);
  });
});
