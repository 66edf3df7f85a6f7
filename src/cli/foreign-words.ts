/**
 * Commands of docker, podman and kubectl, with the command of podvm to use instead: one sentence each, for the fix of
 * an unknown command.
 */
const ps = 'List pods with `podvm ps`.';
const stop = 'Stop a pod with `podvm stop POD`, and remove it with `podvm rm POD`; `podvm rm -f POD` does both.';
const run = 'Run an image with `podvm run IMAGE`, or the Pods of a file with `podvm run FILE`.';
const inspect = 'Print all details and events of a pod with `podvm inspect POD`.';
const noNetworks = 'The node has one network: use --network cni or none of `podvm run`.';
const itself = 'Type the command without it: `podvm ps`, `podvm run IMAGE`.';
const noBuild = 'Build with docker or podman, save the image to a file, and load it with `podvm image load FILE`.';

export const foreignWords: ReadonlyMap<string, string> = new Map(
  Object.entries({
    create: run,
    play: run,
    kube: run,
    compose: run,
    up: run,
    list: ps,
    ls: ps,
    pods: ps,
    pod: ps,
    container: ps,
    containers: ps,
    down: stop,
    port: inspect,
    pull: 'Pull an image with `podvm image pull IMAGE`.',
    load: 'Load an image with `podvm image load FILE`.',
    import: 'Load an image with `podvm image load FILE`.',
    tag: 'Tag an image with `podvm image tag IMAGE NAME`.',
    rmi: 'Remove an image with `podvm image rm IMAGE`.',
    build: noBuild,
    commit: noBuild,
    push: 'Push with skopeo, docker or podman: podvm only pulls.',
    network: noNetworks,
    docker: itself,
    podman: itself,
    kubectl: itself,
  }),
);
