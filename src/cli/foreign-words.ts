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
const change = 'Change the file, and apply it with `podvm apply -f FILE`.';
const node = 'Describe this node with `podvm info`, and check it with `podvm doctor`.';
const objects = 'List what `podvm apply` has made with `podvm get`, such as `podvm get deploy,svc`.';
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
    buildx: noBuild,
    save: 'Save an image with skopeo, docker or podman: podvm only pulls and loads.',
    export: 'Copy files of a pod, as a tar archive, with `podvm cp POD:PATH -`.',
    history: 'Print all details of an image with `podvm image inspect IMAGE`.',
    search: 'Search in a browser, or list the tags of an image with `skopeo list-tags docker://IMAGE`.',
    generate: 'Print the Pod of a command line with `podvm run --dry-run -o yaml IMAGE`.',
    scale: change,
    rollout: change,
    set: change,
    edit: change,
    patch: change,
    replace: change,
    update: change,
    label: change,
    annotate: change,
    expose: change,
    autoscale: change,
    node,
    nodes: node,
    config: node,
    context: node,
    service: objects,
    services: objects,
    deployment: objects,
    deployments: objects,
    job: objects,
    jobs: objects,
    network: noNetworks,
    docker: itself,
    podman: itself,
    kubectl: itself,
  }),
);
