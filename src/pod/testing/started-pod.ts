import assert from 'node:assert/strict';
import { silentLog } from '#host/log/log.ts';
import { parseManifest } from '../manifest/manifest.ts';
import type { PodConfig } from '../pods.ts';
import { startPod } from '../start-pod.ts';
import { createFakeClock } from './fake-clock.ts';
import type { FakeBehaviour } from './fake-container.ts';
import { createFakeSandboxes, type FakeSettings } from './fake-sandbox.ts';

/** A container that exits at once. */
export const exitsWith = (code: number): FakeBehaviour => ({ onStart: (container) => container.exit(code) });

/** Starts a pod from the content of its `spec`, with a fake world around it. */
export function startFakePod(spec: string, settings: FakeSettings = {}, config: Partial<PodConfig> = {}) {
  const clock = createFakeClock();
  const sandboxes = createFakeSandboxes(clock, settings);
  const text = `apiVersion: v1\nkind: Pod\nmetadata: { name: web, labels: { app: web } }\nspec: ${spec}`;
  const [object] = parseManifest(text, 'test.yaml').pods;
  assert.ok(object !== undefined);
  const signal = new AbortController();
  const whole: PodConfig = { configMaps: [], secrets: [], network: 'cni', nodeName: 'node', ...config };
  const running = startPod(object, whole, { sandboxes, log: silentLog, clock }, signal.signal);
  const reasons = () => running.events.map((event) => event.reason);
  const statusOf = (name: string) => {
    const found = running.status.containers.find((it) => it.name === name);
    assert.ok(found !== undefined);
    return found;
  };
  return { running, clock, sandboxes, signal, reasons, statusOf };
}

/** The `spec` of a pod with one container, which is not restarted. */
export const one = (more = '') => `{ restartPolicy: Never, containers: [{ name: a, image: i${more} }] }`;
