import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { poll } from '#host/wait.ts';
import { prometheusRecipe } from '../images/site-recipes.ts';
import { openSite, type Site } from '../sites/site.ts';
import { whyNoVm } from './node.ts';

const ports = { from: 30_090, to: 30_097 };
const objects = (service: string, deployment: string) => [
  `Deployment default/prometheus ${deployment}`,
  `Service default/prometheus ${service}`,
];
const up = /"__name__":"up","instance":"localhost:9090","job":"prometheus"\},"value":\[[\d.]+,"1"\]/;

describe('examples/prometheus.yaml', { skip: await whyNoVm(), timeout: 900_000 }, () => {
  let site: Site;
  before(async () => (site = await openSite('prometheus.yaml', ports, [prometheusRecipe])));
  after(async () => await site[Symbol.asyncDispose]());

  test('applied, it scrapes itself and answers a query; applied again, it changes nothing', async () => {
    assert.deepEqual(await site.apply(site.text), objects('created', 'created'));
    await site.page('/api/v1/query?query=up', up);
    assert.deepEqual(await site.apply(site.text), objects('unchanged', 'unchanged'));
  });

  test('with a changed ConfigMap, it reads the changed file when it is told to', async () => {
    const text = site.text.replace('scrape_interval: 5s', 'scrape_interval: 7s');
    assert.deepEqual(await site.apply(text), [
      'ConfigMap default/prometheus configured',
      ...objects('unchanged', 'unchanged'),
    ]);
    const told = async () => {
      assert.equal((await site.cli.type(['kill', '-s', 'HUP', 'prometheus-0'])).code, 0);
      return (await site.page('/api/v1/status/config', /scrape_interval/)).includes('scrape_interval: 7s') || undefined;
    };
    assert.ok(await poll(told, { everyMs: 1000, signal: AbortSignal.timeout(120_000) }));
  });

  test('with a changed template, its pod is replaced', async () => {
    const text = site.text.replace("'--storage", "'--web.page-title=Replaced', '--storage");
    const [data, deployment] = await site.apply(text);
    assert.deepEqual(
      [data, deployment],
      ['ConfigMap default/prometheus configured', 'Deployment default/prometheus configured'],
    );
    await site.page('/api/v1/status/flags', /"web.page-title":"Replaced"/);
    await site.page('/api/v1/query?query=up', up);
  });

  test('deleted, nothing of it is left', async () => {
    assert.equal((await site.cli.type(['delete', '-f', '-'], site.text)).code, 0);
    assert.equal((await site.cli.type(['get', '-o', 'name'])).stdout, '');
    assert.doesNotMatch((await site.cli.type(['ps', '-a'])).stdout, /prometheus/);
  });
});
