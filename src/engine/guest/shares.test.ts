import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { run } from '#host/process/run.ts';
import { buildRoot, builtAgent } from '../../../test/built-program.ts';

/**
 * The process that carries the messages of a share, between sockets in the place of /dev/fuse and of its port: the first
 * gives one message to a read, as the device does.
 */
const isPossible = existsSync(join(buildRoot, 'usr/bin/gcc')) && process.getuid?.() === 0;
const skip = isPossible || process.env['PODVM_REQUIRE_VM'] === '1' ? false : 'needs root and `podvm setup`';

/** Sends requests (opcode, bytes) as the kernel, and prints the sizes in which they reach the host, up to `count` bytes. */
const script = `
use strict; use Socket;
my ($program, $count, @requests) = @ARGV;
socketpair(my $kernel, my $device, AF_UNIX, SOCK_SEQPACKET, 0) or die $!;
socketpair(my $host, my $port, AF_UNIX, SOCK_STREAM, 0) or die $!;
for (@requests) {
  my ($opcode, $bytes) = split ':';
  syswrite($kernel, pack('VV', $bytes, $opcode) . ("\\0" x ($bytes - 8))) == $bytes or die $!;
}
my $pid = fork // die $!;
if (!$pid) {
  close $kernel; close $host;
  open(STDIN, '+<&', $port) or die $!;
  open(STDOUT, '+>&', $device) or die $!;
  exec { $program } 'podvm-pump' or die $!;
}
close $device; close $port;
$SIG{ALRM} = sub { kill 'KILL', $pid; die "only $count bytes are left" };
alarm 60;
while ($count > 0) {
  my $got = sysread($host, my $bytes, 1 << 20) or die 'it has ended';
  print "$got\\n";
  $count -= $got;
}
close $kernel; close $host;
waitpid $pid, 0;
print "ended $?\\n";
`;

const [lookUp, forget, write, release, batchForget] = [1, 2, 16, 18, 42];

describe('podvm-pump', { skip }, () => {
  let directory = '';
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'podvm-pump-'));
    await builtAgent(directory, buildRoot);
  });
  after(() => rm(directory, { recursive: true, force: true }));

  /** Sizes in which requests reach the host. */
  const passed = async (...requests: readonly (readonly [opcode: number, bytes: number])[]) => {
    const count = requests.reduce((sum, [, bytes]) => sum + bytes, 0);
    const words = requests.map(([opcode, bytes]) => `${opcode}:${bytes}`);
    const { stdout } = await run('perl', ['-e', script, join(directory, 'agent'), String(count), ...words]);
    const lines = stdout.trim().split('\n');
    assert.equal(lines.pop(), 'ended 0');
    return lines.map(Number);
  };

  test('passes a close and what the kernel forgets together with the next request', async () => {
    assert.deepEqual(await passed([release, 64], [lookUp, 50]), [114]);
    assert.deepEqual(await passed([forget, 48], [release, 64], [batchForget, 72], [write, 100]), [284]);
  });

  test('passes these alone when nothing follows', async () => {
    assert.deepEqual(await passed([lookUp, 50], [release, 64]).then((sizes) => sizes.reduce((a, b) => a + b)), 114);
    assert.deepEqual(await passed([release, 64]), [64]);
  });

  test('passes a request of the largest size behind as many closes as wait', async () => {
    const closes = Array.from({ length: 64 }, () => [release, 64] as const);
    const largest = [write, 80 + (128 << 10)] as const;
    const sizes = await passed(...closes, largest);
    assert.equal(
      sizes.reduce((a, b) => a + b),
      64 * 64 + largest[1],
    );
  });
});
