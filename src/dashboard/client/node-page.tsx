import * as v from 'valibot';
import { diskUsageSchema } from '#api/disk-usage.ts';
import { type NodeDetails, nodeDetailsSchema } from '#api/node.ts';
import { nodeEventSchema, type NodeEvent } from '#api/pods.ts';
import { call, getText, streamText } from './api.ts';
import { Events } from './events.tsx';
import { bytesText, coresText, secondsText } from './format.ts';
import type { Metrics } from './metrics.ts';
import { Plot } from './plot.tsx';
import { usePoll } from './poll.ts';
import { Card, Facts, Figure, Loading, Problem } from './ui.tsx';
import { type NodeSample, type Usage, usage } from './usage.ts';

const shownEvents = 50;

/** The node: its machines, what they take of it, how fast pods start, and what happened. */
export function NodePage() {
  const figures = usePoll('metrics', 5000, async (signal) => {
    usage.take(await getText('/metrics', signal));
    return { usage };
  });
  const room = usePoll('node', 5000, (signal) => call('GET', '/v1/node', nodeDetailsSchema, { signal }));
  const events = usePoll('events', 5000, readEvents);
  const versions = usePoll('version', 60_000, (signal) =>
    call('GET', '/v1/version', v.record(v.string(), v.optional(v.union([v.string(), v.number()]))), { signal }),
  );
  const { metrics } = figures.data?.usage ?? {};
  return (
    <main>
      <div class="head">
        <h1>Node</h1>
      </div>
      <Problem error={figures.error} />
      {metrics === undefined ? (
        figures.error === undefined ? (
          <Loading />
        ) : null
      ) : (
        <div class="cards">
          <Memory metrics={metrics} usage={usage} />
          <Processor metrics={metrics} samples={usage.samples} />
          <Room room={room.data} />
          <Starts metrics={metrics} />
          <div class="stack">
            <Machines metrics={metrics} />
            <Images metrics={metrics} />
            <Disk />
            <Card title="Versions">
              <Facts rows={Object.entries(versions.data ?? {})} />
            </Card>
          </div>
          <Card title="Latest events of pods" wide>
            <Problem error={events.error} />
            {events.data === undefined ? <Loading /> : <Events events={events.data} />}
          </Card>
        </div>
      )}
    </main>
  );
}

async function readEvents(signal: AbortSignal): Promise<readonly NodeEvent[]> {
  let text = '';
  for await (const part of streamText('/v1/events', signal)) text += part;
  const last = text.split('\n').filter(Boolean).slice(-shownEvents);
  return last.map((line) => v.parse(nodeEventSchema, JSON.parse(line)));
}

const stateNames: Readonly<Record<string, string>> = {
  ready: 'Running',
  waiting: 'In the pool',
  creating: 'Starting',
  stopping: 'Stopping',
  stopped: 'Stopped',
  failed: 'Failed',
};

function Machines({ metrics }: { readonly metrics: Metrics }) {
  const states = metrics.all('podvm_machines');
  const hits = metrics.one('podvm_pool_hits_total') ?? 0;
  const misses = metrics.one('podvm_pool_misses_total') ?? 0;
  const sum = (name: string) => metrics.sum(name) ?? 0;
  const made = metrics.one('podvm_template_created_timestamp_seconds');
  return (
    <Card title="Machines">
      <div class="figures">
        {states
          .filter(({ labels, value }) => value > 0 || ['ready', 'waiting', 'creating'].includes(labels['state'] ?? ''))
          .map(({ labels: { state = '' }, value }) => (
            <Figure key={state} name={stateNames[state] ?? state} value={String(value)} />
          ))}
      </div>
      <Facts
        rows={[
          ['Starts from the pool', hits + misses === 0 ? 'none yet' : `${hits} of ${hits + misses}`],
          ['Failed starts', sum('podvm_failed_starts_total')],
          ['Failed machines', sum('podvm_machine_failures_total')],
          ['Processes killed for memory', sum('podvm_oom_kills_total')],
          ['Template made', made === undefined ? undefined : new Date(made * 1000).toLocaleString('en-GB')],
        ]}
      />
    </Card>
  );
}

function Images({ metrics }: { readonly metrics: Metrics }) {
  const pull = metrics.quantile('podvm_image_pull_seconds', {}, 0.5);
  return (
    <Card title="Images">
      <Facts
        rows={[
          ['Stored', `${metrics.one('podvm_images') ?? 0}, ${bytesText(metrics.one('podvm_images_bytes'))}`],
          ['Pulls in progress', metrics.one('podvm_image_pulls_in_progress')],
          ['Median of pulls', pull === undefined ? undefined : secondsText(pull)],
          ['Imports', metrics.one('podvm_image_imports_total')],
        ]}
      />
    </Card>
  );
}

const kindNames: Readonly<Record<string, string>> = {
  part: 'Parts of set-up',
  template: 'Templates',
  images: 'Images',
  pods: 'Pods that run',
  ended: 'Pods that have ended',
  other: 'Others',
};

function Disk() {
  const disk = usePoll('disk', 60_000, (signal) => call('GET', '/v1/disk-usage', diskUsageSchema, { signal }));
  const kinds = Object.entries(Object.groupBy(disk.data?.uses ?? [], ({ kind }) => kind));
  return (
    <Card title="Disk">
      <Problem error={disk.error} />
      <Facts
        rows={[
          ...kinds.map(
            ([kind, uses = []]) =>
              [kindNames[kind] ?? kind, bytesText(uses.reduce((sum, { bytes }) => sum + bytes, 0))] as const,
          ),
          ['Together', disk.data === undefined ? undefined : bytesText(disk.data.totalBytes)],
        ]}
      />
    </Card>
  );
}

function Starts({ metrics }: { readonly metrics: Metrics }) {
  const name = 'podvm_start_phase_seconds';
  const rows = metrics.all(`${name}_count`).map(({ labels: { phase = '' }, value }) => ({
    phase,
    count: value,
    p50: metrics.quantile(name, { phase }, 0.5) ?? 0,
    p95: metrics.quantile(name, { phase }, 0.95) ?? 0,
  }));
  rows.sort((one, other) => Number(other.phase === 'total') - Number(one.phase === 'total') || other.p50 - one.p50);
  const longest = Math.max(0.001, ...rows.map(({ p95 }) => p95));
  const percent = (seconds: number) => `${((100 * seconds) / longest).toFixed(2)}%`;
  return (
    <Card title="Starts by phase" aside={<span class="faint">bar: p50, tick: p95</span>}>
      {rows.length === 0 ? (
        <p class="empty">No pod has started since this node did.</p>
      ) : (
        <table class="timeline">
          <thead>
            <tr>
              <th scope="col">Phase</th>
              <th scope="col" class="number">
                p50
              </th>
              <th scope="col" class="number">
                p95
              </th>
              <th scope="col" class="grow mid">
                <span class="hidden">As a bar</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map(({ phase, p50, p95 }) => (
              <tr key={phase} class={phase === 'total' ? 'total' : ''}>
                <th scope="row">{phase}</th>
                <td class="number">{secondsText(p50)}</td>
                <td class="number">{secondsText(p95)}</td>
                <td class="mid" aria-hidden="true">
                  <div class="bars">
                    <span class="bar" style={{ width: percent(p50) }} />
                    <span class="tick" style={{ left: percent(p95) }} />
                  </div>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </Card>
  );
}

function Memory({ metrics, usage: { samples } }: { readonly metrics: Metrics; readonly usage: Usage }) {
  const now = samples.at(-1);
  const total = metrics.one('podvm_node_memory_bytes') ?? 0;
  const available = metrics.one('podvm_node_memory_available_bytes') ?? 0;
  const machines = now?.machineBytes ?? 0;
  const pods = Math.min(now?.podBytes ?? 0, machines);
  const parts = [
    { name: 'Pods', bytes: pods, class: 'pod' },
    { name: 'VM overhead', bytes: machines - pods, class: 'vm' },
    { name: 'Rest of the node', bytes: Math.max(0, total - available - machines), class: 'rest' },
    { name: 'Available', bytes: available, class: 'free' },
  ];
  return (
    <Card title="Memory" aside={<span class="faint">{bytesText(total)}</span>}>
      <div
        class="split"
        role="img"
        aria-label={parts.map(({ name, bytes }) => `${name} ${bytesText(bytes)}`).join(', ')}
      >
        {parts.map((part) => (
          <span
            key={part.name}
            class={part.class}
            style={{ width: `${total === 0 ? 0 : (100 * part.bytes) / total}%` }}
          />
        ))}
      </div>
      <div class="figures">
        {parts.map(({ name, bytes, class: its }) => (
          <Figure key={its} name={name} value={bytesText(bytes)} mark={its} />
        ))}
      </div>
      <Plot
        title="Memory of all pods and their VMs"
        format={bytesText}
        isBytes
        times={samples.map(({ at }) => at)}
        lines={[
          { name: 'VMs', colour: '--vm', values: samples.map(({ machineBytes }) => machineBytes) },
          { name: 'Pods', colour: '--pod', values: samples.map(({ podBytes }) => podBytes) },
        ]}
        fillsBetween
      />
    </Card>
  );
}

/** What the node has promised to its pods, and what is left. */
function Room({ room }: { readonly room: NodeDetails | undefined }) {
  const { memory, cpu } = room ?? {};
  if (memory === undefined || cpu === undefined) return null;
  const without = (pods: number) =>
    pods === 0 ? 'all pods have one' : pods === 1 ? '1 pod has none' : `${pods} pods have none`;
  const left = Math.max(0, memory.availableBytes - memory.reserveBytes);
  const leftMillis = Math.max(0, cpu.totalMillis - cpu.requestsMillis);
  return (
    <Card title="Promised to pods" wide>
      <div class="figures">
        <Figure
          name="Room for memory"
          value={bytesText(left)}
          note={`beside ${bytesText(memory.reserveBytes)} that the node keeps`}
        />
        <Figure
          name="Requests of memory"
          value={bytesText(memory.requestsBytes)}
          note={`machines take ${bytesText(memory.usedBytes)}`}
        />
        <Figure name="Limits of memory" value={bytesText(memory.limitsBytes)} note={without(memory.unlimitedPods)} />
        <Figure
          name="Room for processors, cores"
          value={coresText(leftMillis / 1000)}
          note={`of ${coresText(cpu.totalMillis / 1000)}`}
        />
        <Figure name="Requests, cores" value={coresText(cpu.requestsMillis / 1000)} />
        <Figure name="Limits, cores" value={coresText(cpu.limitsMillis / 1000)} note={without(cpu.unlimitedPods)} />
      </div>
    </Card>
  );
}

function Processor({ metrics, samples }: { readonly metrics: Metrics; readonly samples: readonly NodeSample[] }) {
  const now = samples.at(-1);
  const waited = (resource: string) =>
    secondsText(metrics.one('podvm_node_pressure_waiting_seconds_total', { resource }));
  const overhead =
    now?.podCores === undefined || now.machineCores === undefined ? undefined : now.machineCores - now.podCores;
  return (
    <Card title="Processor">
      <div class="figures">
        <Figure name="Pods, cores" value={coresText(now?.podCores)} />
        <Figure name="VMs, cores" value={coresText(now?.machineCores)} />
        <Figure name="Overhead" value={coresText(overhead)} />
        <Figure
          name="Waited for processors"
          value={waited('cpu')}
          note={`memory ${waited('memory')}, I/O ${waited('io')}`}
        />
      </div>
      <Plot
        title="Processor use of all pods and their VMs"
        format={coresText}
        times={samples.map(({ at }) => at)}
        lines={[
          { name: 'VMs', colour: '--vm', values: samples.map(({ machineCores }) => machineCores) },
          { name: 'Pods', colour: '--pod', values: samples.map(({ podCores }) => podCores) },
        ]}
        fillsBetween
      />
    </Card>
  );
}
