import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { wordpressRecipes } from '../images/site-recipes.ts';
import { whyNoVm } from '../vm/node.ts';
import { openSite, type Site } from './site.ts';

const ports = { from: 30_080, to: 30_096 };
const each = (change: string) =>
  ['Deployment', 'Service', 'PersistentVolumeClaim']
    .flatMap((kind) => [`${kind} default/wordpress ${change}`, `${kind} default/wordpress-database ${change}`])
    .toSorted();

/** `npm run wordpress`: its images take longer to build than all of CI may. */
describe('examples/wordpress.yaml', { skip: await whyNoVm(), timeout: 1_800_000 }, () => {
  let site: Site;
  before(async () => (site = await openSite('wordpress.yaml', ports, wordpressRecipes)));
  after(async () => await site[Symbol.asyncDispose]());

  test('applied, it installs itself into its database', async () => {
    assert.deepEqual(await site.apply(site.text), each('created'));
    await site.page('/', /<title>WordPress &rsaquo; Installation<\/title>/);
    const answers = {
      ...{ weblog_title: 'A site in two machines', user_name: 'admin', admin_email: 'admin@example.com' },
      ...{ admin_password: 'correct horse', admin_password2: 'correct horse', pw_weak: 'on', language: '' },
    };
    const address = `http://127.0.0.1:${ports.to}/wp-admin/install.php?step=2`;
    const installed = await fetch(address, { method: 'POST', body: new URLSearchParams(answers) });
    assert.match(await installed.text(), /WordPress has been installed/);
    await site.page('/wp-login.php', /<title>Log In &lsaquo; A site in two machines /);
    const rows = 'select user_login from wordpress.wp_users';
    const asked = await site.cli.type([
      'exec',
      'wordpress-database-0',
      '--',
      'mariadb',
      '-pchange-me-first',
      '-Ne',
      rows,
    ]);
    assert.equal(asked.stdout, 'admin\n', asked.stderr);
  });

  test('applied again, it changes nothing', async () => {
    assert.deepEqual(await site.apply(site.text), each('unchanged'));
    assert.equal((await site.cli.type(['diff', '-f', '-'], site.text)).code, 0);
  });

  test('with changed templates, both pods are replaced, and find their volumes', async () => {
    const uid = async (pod: string) =>
      /"uid": "(.*)"/.exec((await site.cli.type(['inspect', pod])).stdout)?.[1] ?? assert.fail(`no uid of ${pod}`);
    const pods = ['wordpress-0', 'wordpress-database-0'];
    const before = await Promise.all(pods.map(uid));
    const text = site.text.replaceAll('memory: 512Mi', 'memory: 640Mi');
    const changed = await site.apply(text);
    assert.deepEqual(
      changed.filter((line) => line.endsWith(' configured')),
      ['Deployment default/wordpress configured', 'Deployment default/wordpress-database configured'],
    );
    const now = await Promise.all(pods.map(uid));
    assert.ok(now.every((id) => !before.includes(id)));
    await site.page('/wp-login.php', /<title>Log In &lsaquo; A site in two machines /);
    assert.deepEqual(await site.apply(text), each('unchanged'));
  });

  test('deleted, it leaves its volumes', async () => {
    assert.equal((await site.cli.type(['delete', '-f', '-'], site.text)).code, 0);
    const kept = 'PersistentVolumeClaim default/wordpress\nPersistentVolumeClaim default/wordpress-database\n';
    assert.equal((await site.cli.type(['get', '-o', 'name'])).stdout, kept);
  });
});
