import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bytesText, plainText } from './client/format.ts';
import { Metrics } from './client/metrics.ts';
import { usage } from './client/usage.ts';
import { measureWork } from '../../test/busy-time.ts';

describe('figures of /metrics', () => {
  const metrics = new Metrics(`# HELP a about
a{x="1",y="q\\"\\\\\\n,}"} 2.5
a{x="2"} 3
podvm_b 7
h_bucket{phase="total",le="0.1"} 0
h_bucket{phase="total",le="0.5"} 2
h_bucket{phase="total",le="+Inf"} 4
h_count{phase="total"} 4
`);

  it('have labels and values, escaped as Prometheus writes them', () => {
    assert.equal(metrics.one('a', { x: '1' }), 2.5);
    assert.equal(metrics.all('a')[0]?.labels['y'], 'q"\\\n,}');
    assert.equal(metrics.sum('a'), 5.5);
    assert.equal(metrics.one('podvm_b'), 7);
    assert.equal(metrics.one('absent'), undefined);
  });

  it('have quantiles as Prometheus computes them', () => {
    assert.equal(metrics.quantile('h', { phase: 'total' }, 0.25), 0.1 + 0.4 / 2);
    assert.equal(metrics.quantile('h', { phase: 'total' }, 0.95), 0.5);
    assert.equal(metrics.quantile('h', { phase: 'absent' }, 0.5), undefined);
  });
});

describe('use of pods', () => {
  const figures = (age: number, cpu: number, machineCpu: number, pod = 'web') => `
container_memory_usage_bytes{container="main",namespace="default",pod="${pod}"} 1
container_memory_usage_bytes{namespace="default",pod="${pod}"} 1000
container_spec_memory_limit_bytes{namespace="default",pod="${pod}"} 0
container_cpu_usage_seconds_total{namespace="default",pod="${pod}"} ${cpu}
podvm_pod_vmm_private_memory_bytes{namespace="default",pod="${pod}",id="1"} 3000
podvm_pod_vmm_cpu_seconds_total{namespace="default",pod="${pod}",id="1"} ${machineCpu}
podvm_pod_figures_age_seconds{namespace="default",pod="${pod}",id="1"} ${age}
`;
  const rounded = () => {
    const { cores = NaN, machineCores = NaN } = usage.pods.get('default/web') ?? {};
    return [cores.toFixed(1), machineCores.toFixed(1)];
  };

  it('is that of whole pods; processor use is that between two measurements of the guest', () => {
    usage.take(figures(40, 10, 20));
    const { memoryBytes, memoryLimitBytes, machineBytes, cores } = usage.pods.get('default/web') ?? {};
    assert.deepEqual([memoryBytes, memoryLimitBytes, machineBytes, cores], [1000, undefined, 3000, undefined]);
    usage.take(figures(20, 20, 50));
    assert.deepEqual(rounded(), ['0.5', '1.5']);
    usage.take(figures(21, 20, 50)); // the same measurement, read again
    assert.deepEqual(rounded(), ['0.5', '1.5']);
    assert.equal(usage.samples.at(-1)?.machineBytes, 3000);
  });

  it('is right after the host of the browser has slept', ({ mock }) => {
    mock.timers.enable({ apis: ['Date'], now: Date.now() });
    usage.take(figures(0, 100, 100, 'slept'));
    mock.timers.tick(3_600_000);
    usage.take(figures(0, 1900, 3700, 'slept'));
    mock.timers.reset();
    const { cores, machineCores } = usage.pods.get('default/slept') ?? {};
    assert.deepEqual([cores, machineCores], [0.5, 1]);
  });

  it('begins again with a pod that was restarted, and forgets a pod that is gone', () => {
    usage.take(figures(10, 1, 2));
    assert.deepEqual(rounded(), ['NaN', 'NaN']);
    usage.take(figures(0, 1, 2, 'other'));
    assert.deepEqual([...usage.pods.keys()], ['default/other']);
  });
});

describe("a guest's text", () => {
  it('loses the sequences of terminals and shows other control characters', () => {
    const hostile =
      '\u001b]0;title\u0007a\u001b[31mred\u001b[0m\u001b]8;;http://x\u001b\\link\u001b]52;c;aGk=\u0007!\u0000\u202e\r\n';
    assert.equal(plainText(hostile), 'aredlink!··\n');
    assert.equal(plainText('<script>alert(1)</script>'), '<script>alert(1)</script>');
  });

  it('does not take long, whatever it is', () => {
    const workMs = measureWork();
    plainText('\u001b]'.repeat(50_000));
    plainText('\u001b['.repeat(50_000));
    assert.ok(workMs() < 1000);
  });
});

describe('bytes', () => {
  it('have three digits', () => {
    const texts = [0, 999, 1000, 1023, 1024, 10_239, 1_048_575, 134_217_728, -2048].map(bytesText);
    assert.deepEqual(texts, [
      '0 B',
      '999 B',
      '0.98 KiB',
      '1.00 KiB',
      '1.00 KiB',
      '10.0 KiB',
      '1.00 MiB',
      '128 MiB',
      '−2.00 KiB',
    ]);
  });
});
