import * as v from 'valibot';
import * as s from './scalars.ts';

/** Probes and lifecycle hooks, with Kubernetes' defaults (pkg/apis/core/v1/defaults.go). */
const execAction = v.object({
  command: v.pipe(s.list(s.string, 1000), v.minLength(1, 'must not be empty')),
});

const httpGetAction = v.object({
  path: v.optional(
    v.pipe(s.string, v.minLength(1, 'must not be empty'), v.maxLength(8192, 'must have at most 8192 characters')),
    '/',
  ),
  port: s.portReference,
  /** Another host than the pod itself. */
  host: s.unlessZero(s.string),
  scheme: v.optional(s.picklist(['HTTP', 'HTTPS']), 'HTTP'),
  httpHeaders: v.optional(
    s.list(
      v.object({
        name: v.pipe(s.string, v.regex(/^[-!#$%&'*+.^_`|~0-9A-Za-z]+$/, 'must be an HTTP header name')),
        value: v.pipe(s.string, v.regex(/^[^\r\n\0]*$/, 'must be one line')),
      }),
      100,
    ),
    [],
  ),
});
export type HttpGetAction = v.InferOutput<typeof httpGetAction>;

const tcpSocketAction = v.object({ port: s.portReference, host: s.unlessZero(s.string) });
/** `grpc.health.v1.Health/Check` without TLS, as kubelets ask; `service`: name of the service, "" for the server itself. */
const grpcAction = v.object({ port: s.port, service: v.optional(s.string, '') });
const seconds = (min: number) => s.integer(min, s.int32Max);

const probeEntries = {
  exec: v.optional(execAction),
  httpGet: v.optional(httpGetAction),
  tcpSocket: v.optional(tcpSocketAction),
  grpc: v.optional(grpcAction),
  initialDelaySeconds: v.optional(seconds(0), 0),
  timeoutSeconds: s.unlessZeroOr(seconds(1), 1),
  periodSeconds: s.unlessZeroOr(seconds(1), 10),
  successThreshold: s.unlessZeroOr(seconds(1), 1),
  failureThreshold: s.unlessZeroOr(seconds(1), 3),
};
const oneAction = <T extends object>() => s.exactlyOne<T>(['exec', 'httpGet', 'tcpSocket', 'grpc'] as never, 'action');

export const readinessProbe = v.pipe(v.object(probeEntries), oneAction());
/** A liveness or startup probe: one success counts, and it may bring its own grace period. */
export const killingProbe = v.pipe(
  v.object({
    ...probeEntries,
    successThreshold: s.unlessZeroOr(v.literal(1, 'must be 1 for a liveness or startup probe'), 1),
    terminationGracePeriodSeconds: v.optional(seconds(1)),
  }),
  oneAction(),
);
export type Probe = v.InferOutput<typeof readinessProbe> & {
  readonly terminationGracePeriodSeconds?: number | undefined;
};

const lifecycleHandler = v.pipe(
  v.looseObject({
    exec: v.optional(execAction),
    httpGet: v.optional(httpGetAction),
    sleep: v.optional(v.object({ seconds: seconds(0) })),
  }),
  s.exactlyOne(['exec', 'httpGet', 'sleep'], 'action', ['tcpSocket']),
);
export type LifecycleHandler = v.InferOutput<typeof lifecycleHandler>;

export const lifecycle = v.object({ postStart: v.optional(lifecycleHandler), preStop: v.optional(lifecycleHandler) });
