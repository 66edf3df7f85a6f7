import assert from 'node:assert/strict';
import type { Steps } from '../containerd/walk-steps.ts';
import { until } from './kubectl.ts';
import type { Tour } from './tour.ts';
import { fetchAll, serviceOf, webAddresses, webNames } from './serving-pods.ts';

/** What a policy allows to come to a pod, or to go from it: a pod's packets, questions for names, or nothing. */
export interface Policy {
  readonly pod: string;
  readonly direction: 'from' | 'to';
  readonly allowed: { readonly pod: string } | 'names' | 'nothing';
}

/** A way to enforce policies. */
export interface Policies {
  /** Enforces a policy in place of an older one for the same pod and direction. */
  write(tour: Tour, policy: Policy): Promise<void>;
  remove(tour: Tour, pod: string, direction: 'from' | 'to'): Promise<void>;
}

/** Policies between pods of both runtimes, on both workers. */
export const policySteps = (policies: Policies): Steps<Tour> => [
  [
    'what no rule allows reaches no pod, by address or by Service',
    async (tour) => {
      for (const pod of webNames) await policies.write(tour, { pod, direction: 'to', allowed: 'nothing' });
      for (const from of webNames) await reaches(tour, from, () => false);
    },
  ],
  [
    'a rule lets one pod in, and the others stay out',
    async (tour) => {
      for (const pod of webNames) {
        await policies.write(tour, { pod, direction: 'to', allowed: { pod: friends[pod] ?? '' } });
      }
      for (const from of webNames) await reaches(tour, from, (to) => friends[to] === from);
    },
  ],
  [
    'a pod that may ask for names alone reaches nothing else',
    async (tour) => {
      for (const pod of webNames) {
        await policies.remove(tour, pod, 'to');
        await policies.write(tour, { pod, direction: 'from', allowed: 'names' });
      }
      for (const from of webNames) await asksOnly(tour, from);
    },
  ],
  [
    'without the rules, all pods reach each other again',
    async (tour) => {
      for (const pod of webNames) await policies.remove(tour, pod, 'from');
      for (const from of webNames) await reaches(tour, from, () => true);
    },
  ],
];

/** The only pod that may reach the other one. */
const friends: Readonly<Record<string, string>> = {
  'machine-1': 'runc-2',
  'machine-2': 'machine-1',
  'runc-2': 'machine-2',
};

/** Checks which pods a pod reaches, by address and by Service. It is never asked for itself. */
async function reaches(tour: Tour, from: string, expected: (to: string) => boolean): Promise<void> {
  const others = webNames.filter((name) => name !== from);
  const addresses = await webAddresses(tour.kubectl);
  const hosts = [...others.map((name) => `${addresses.get(name)}:8080`), ...others.map(serviceOf)];
  const wanted = [...others, ...others].map((name) => (expected(name) ? name : 'none'));
  await until(`${from} reaches ${wanted.join(', ')}`, async () => {
    assert.deepEqual((await tour.kubectl.sh(from, fetchAll(hosts))).split('\n'), wanted);
  });
}

async function asksOnly(tour: Tour, from: string): Promise<void> {
  await until(`${from} gets answers to its questions`, async () => {
    assert.match(await tour.kubectl.sh(from, 'nslookup kubernetes.default.svc.cluster.local'), /10\.96\.0\.1\b/);
  });
  await reaches(tour, from, () => false);
}
