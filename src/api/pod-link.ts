import * as v from 'valibot';

/**
 * Answer of a dashboard to `POST /links/{namespace}/{name}/{port}`: the host, without the port, at which the dashboard's
 * server passes HTTP on to that port of the pod.
 */
export const openedLinkSchema = v.object({ host: v.pipe(v.string(), v.regex(/^[0-9a-f]{40}\.localhost$/)) });
export type OpenedLink = v.InferOutput<typeof openedLinkSchema>;
