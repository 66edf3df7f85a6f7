import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDistribution, readDistribution } from './distribution.ts';

test('parseDistribution() reads quoted and plain values, and recognises tried distributions', () => {
  const debian = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nNAME="Debian GNU/Linux"\nVERSION_ID="13"\nID=debian\n';
  assert.deepEqual(parseDistribution(debian), { name: 'Debian GNU/Linux 13 (trixie)', isTried: true });
  const ubuntu = "PRETTY_NAME='Ubuntu 24.04.1 LTS'\nVERSION_ID='24.04'\nID=ubuntu\nID_LIKE=debian\n";
  assert.deepEqual(parseDistribution(ubuntu), { name: 'Ubuntu 24.04.1 LTS', isTried: true });
});

test('parseDistribution() names a distribution that was not tried', () => {
  const other = 'PRETTY_NAME="Fedora Linux 43"\nID=fedora\nVERSION_ID=43\n';
  assert.deepEqual(parseDistribution(other), { name: 'Fedora Linux 43', isTried: false });
  assert.deepEqual(parseDistribution('ID=debian\nVERSION_ID="11"\n'), { name: 'debian 11', isTried: false });
  assert.deepEqual(parseDistribution('ID=debian\n'), { name: 'debian', isTried: false }); // testing has no number
});

test('readDistribution() works without os-release', async () => {
  assert.deepEqual(await readDistribution('/nowhere'), { name: 'an unknown distribution', isTried: false });
});
