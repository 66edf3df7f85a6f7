import type { Link } from '#link/link.ts';

/** Shapes of the agent's language, taken from the link: this layer does not import the wire. */
declare const link: Link;
export type GuestEvent = Parameters<Parameters<Link['onEvent']>[0]>[0];
export type GuestExit = Extract<GuestEvent, { kind: 'exited' }>;
export type ContainerParams = Parameters<typeof link.call<'createContainer'>>[1];
export type ConfigureParams = Parameters<typeof link.call<'configure'>>[1];
export type ConnectParams = Parameters<typeof link.call<'connect'>>[1];
export type MetricFigures = Awaited<ReturnType<typeof link.call<'metrics'>>>;
export type InterfaceCounters = MetricFigures['interfaces'][number];
export type GuestStats = Awaited<ReturnType<typeof link.call<'stats'>>>;
