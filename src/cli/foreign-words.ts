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
const object = 'Write it into a file beside the pods that use it, and apply that with `podvm apply -f FILE`.';
const compose =
  'podvm reads no compose files: run images with `podvm run -d IMAGE`, or Kubernetes files with `podvm apply -f FILE`.';
const history = 'Print all details of an image with `podvm image inspect IMAGE`.';
const push = 'Push with skopeo, docker or podman: podvm only pulls.';
const save = 'Save an image with skopeo, docker or podman: podvm only pulls and loads.';
const load = 'Load an image with `podvm image load FILE`.';
const noBuild = 'Build with docker or podman, save the image to a file, and load it with `podvm image load FILE`.';

export const foreignWords: ReadonlyMap<string, string> = new Map(
  Object.entries({
    create: run,
    play: run,
    kube: run,
    compose,
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
    load,
    import: load,
    tag: 'Tag an image with `podvm image tag IMAGE NAME`.',
    rmi: 'Remove an image with `podvm image rm IMAGE`.',
    build: noBuild,
    commit: noBuild,
    push,
    buildx: noBuild,
    save,
    export: 'Copy files of a pod, as a tar archive, with `podvm cp POD:PATH -`.',
    history,
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
    nerdctl: itself,
    secret: object,
    secrets: object,
    configmap: object,
    configmaps: object,
    namespace: 'A namespace needs no object: `podvm ps -n NAMESPACE` lists its pods, and files name theirs.',
    namespaces: 'A namespace needs no object: `podvm ps -n NAMESPACE` lists its pods, and files name theirs.',
    volumes: 'List volumes with `podvm volume ls`.',
    'cluster-info': node,
    cordon: node,
    uncordon: node,
    taint: node,
    machine: node,
    machines: node,
    explain: 'Errors of `podvm apply -f FILE` and `podvm run -f FILE` name wrong fields with their lines.',
    proxy: 'Reach a port of a pod with `podvm port-forward POD PORT`.',
    kustomize: 'For a kustomization: `kubectl kustomize DIR | podvm apply -f -`.',
    checkpoint: 'A pod that is to stand still for a while is frozen with `podvm pause POD`.',
    resume: 'Let a paused pod continue with `podvm unpause POD`.',
    remove: stop,
    destroy: stop,
    shell: 'Run a shell in a pod with `podvm exec -it POD sh`; `podvm debug POD` brings one.',
    ssh: 'Run a shell in a pod with `podvm exec -it POD sh`; `podvm debug POD` brings one.',
    untag: 'Remove a name of an image with `podvm image rm NAME`.',
    'image build': noBuild,
    'image import': load,
    'image push': push,
    'image save': save,
    'image history': history,
    'image list': 'List images with `podvm image ls`, or `podvm images`.',
    'image remove': 'Remove an image with `podvm image rm IMAGE`.',
    'image untag': 'Remove a name of an image with `podvm image rm NAME`.',
    'image search': 'Search in a browser, or list the tags of an image with `skopeo list-tags docker://IMAGE`.',
    'volume list': 'List volumes with `podvm volume ls`.',
    'volume remove': 'Remove a volume with `podvm volume rm VOLUME`.',
    'volume prune': 'Remove volumes by name with `podvm volume rm VOLUME`: their data is not restored by anything.',
    'system info': 'Use `podvm info`.',
    'system events': 'Use `podvm events`, and `podvm events -f` to follow them.',
  }),
);
