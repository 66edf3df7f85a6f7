// A CSI driver whose volumes are image files on loop devices of its node, in mode Filesystem with a Btrfs, which grows
// without CAP_SYS_RESOURCE. It registers itself with the kubelet. Its volumes exist once a node stages them; `size` of
// their attributes is their first size.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"unsafe"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	name          = "files.csi.podvm.dev"
	images        = "/images"
	pluginSocket  = "/csi/csi.sock"
	kubeletSocket = "/var/lib/kubelet/plugins/" + name + "/csi.sock"
	registrations = "/registration/" + name + "-reg.sock"
	growBtrfs     = 0x50009403 // BTRFS_IOC_RESIZE
)

type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	lock  sync.Mutex
	loops map[string]string // of staged volumes
}

func (*driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: name, Endpoint: kubeletSocket, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (*driver) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !status.PluginRegistered {
		log.Fatal("not registered: ", status.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

func (*driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: name, VendorVersion: "1"}, nil
}

func (*driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	service := &csi.PluginCapability_Service_{
		Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE},
	}
	online := &csi.PluginCapability_VolumeExpansion_{
		VolumeExpansion: &csi.PluginCapability_VolumeExpansion{Type: csi.PluginCapability_VolumeExpansion_ONLINE},
	}
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{{Type: service}, {Type: online}}}, nil
}

// ControllerGetCapabilities returns none: the node alone makes and expands volumes.
func (*driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	return &csi.ControllerGetCapabilitiesResponse{}, nil
}

func (*driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (*driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: os.Getenv("NODE_NAME")}, nil
}

func (*driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	var all []*csi.NodeServiceCapability
	for _, each := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
	} {
		rpc := &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: each}}
		all = append(all, &csi.NodeServiceCapability{Type: rpc})
	}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: all}, nil
}

func (d *driver) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	d.lock.Lock()
	defer d.lock.Unlock()
	if _, staged := d.loops[r.VolumeId]; staged {
		return &csi.NodeStageVolumeResponse{}, nil
	}
	image := filepath.Join(images, filepath.Base(r.VolumeId))
	isBlock := r.VolumeCapability.GetBlock() != nil
	if err := create(image, r.VolumeContext["size"], isBlock); err != nil {
		return nil, err
	}
	loop, err := attach(image)
	if err != nil {
		return nil, err
	}
	if !isBlock {
		if err := unix.Mount(loop, r.StagingTargetPath, "btrfs", 0, ""); err != nil {
			return nil, errors.Join(err, detach(loop))
		}
	}
	d.loops[r.VolumeId] = loop
	return &csi.NodeStageVolumeResponse{}, nil
}

func (d *driver) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	d.lock.Lock()
	defer d.lock.Unlock()
	loop, staged := d.loops[r.VolumeId]
	if !staged {
		return &csi.NodeUnstageVolumeResponse{}, nil
	}
	if err := unmount(r.StagingTargetPath); err != nil {
		return nil, err
	}
	if err := detach(loop); err != nil {
		return nil, err
	}
	delete(d.loops, r.VolumeId)
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (d *driver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	d.lock.Lock()
	defer d.lock.Unlock()
	source := r.StagingTargetPath
	if r.VolumeCapability.GetBlock() != nil {
		source = d.loops[r.VolumeId]
		file, err := os.OpenFile(r.TargetPath, os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		file.Close()
	} else if err := os.MkdirAll(r.TargetPath, 0o750); err != nil {
		return nil, err
	}
	if err := unmount(r.TargetPath); err != nil { // a call that was repeated
		return nil, err
	}
	return &csi.NodePublishVolumeResponse{}, unix.Mount(source, r.TargetPath, "", unix.MS_BIND, "")
}

func (*driver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unmount(r.TargetPath); err != nil {
		return nil, err
	}
	if err := os.Remove(r.TargetPath); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (d *driver) NodeExpandVolume(_ context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	d.lock.Lock()
	defer d.lock.Unlock()
	bytes := r.CapacityRange.GetRequiredBytes()
	if err := os.Truncate(filepath.Join(images, filepath.Base(r.VolumeId)), bytes); err != nil {
		return nil, err
	}
	if err := call(d.loops[r.VolumeId], unix.LOOP_SET_CAPACITY, 0); err != nil {
		return nil, err
	}
	if r.VolumeCapability.GetBlock() == nil {
		var arguments struct {
			_    int64
			size [4088]byte
		}
		copy(arguments.size[:], "max")
		if err := call(r.VolumePath, growBtrfs, uintptr(unsafe.Pointer(&arguments))); err != nil {
			return nil, err
		}
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: bytes}, nil
}

func (*driver) NodeGetVolumeStats(_ context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	var stats unix.Statfs_t
	if err := unix.Statfs(r.VolumePath, &stats); err != nil {
		return nil, err
	}
	total, free := int64(stats.Blocks)*stats.Bsize, int64(stats.Bavail)*stats.Bsize
	usage := &csi.VolumeUsage{Unit: csi.VolumeUsage_BYTES, Total: total, Available: free, Used: total - free}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{usage}}, nil
}

// create makes an image unless it is there.
func create(image, size string, isBlock bool) error {
	bytes, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return err
	}
	if _, err := os.Stat(image); err == nil {
		return nil
	}
	made := image + ".new"
	file, err := os.Create(made)
	if err != nil {
		return err
	}
	file.Close()
	if err := os.Truncate(made, bytes); err != nil {
		return err
	}
	if !isBlock {
		said, err := exec.Command("mkfs.btrfs", "--quiet", "--force", made).CombinedOutput()
		if err != nil {
			return fmt.Errorf("mkfs.btrfs: %w: %s", err, said)
		}
	}
	return os.Rename(made, image)
}

// attach finds a free loop device for an image.
func attach(image string) (string, error) {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	for {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", err
		}
		loop := fmt.Sprintf("/dev/loop%d", number)
		device, err := os.OpenFile(loop, os.O_RDWR, 0)
		if err != nil {
			return "", err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{Fd: uint32(file.Fd())})
		device.Close()
		if err == nil {
			return loop, nil
		}
		if err != unix.EBUSY { // another program was faster
			return "", err
		}
	}
}

func detach(loop string) error { return call(loop, unix.LOOP_CLR_FD, 0) }

func call(path string, request, argument uintptr) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, _, code := unix.Syscall(unix.SYS_IOCTL, file.Fd(), request, argument); code != 0 {
		return code
	}
	return nil
}

// unmount returns no error for what is not mounted.
func unmount(path string) error {
	if err := unix.Unmount(path, 0); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return err
	}
	return nil
}

func listen(socket string) net.Listener {
	os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func main() {
	d := &driver{loops: map[string]string{}}
	plugin, registrar := grpc.NewServer(), grpc.NewServer()
	csi.RegisterIdentityServer(plugin, d)
	csi.RegisterControllerServer(plugin, d)
	csi.RegisterNodeServer(plugin, d)
	registration.RegisterRegistrationServer(registrar, d)
	go func() { log.Fatal(plugin.Serve(listen(pluginSocket))) }()
	log.Fatal(registrar.Serve(listen(registrations)))
}
