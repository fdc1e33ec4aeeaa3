"""Where an artifact runs: this machine, an emulated Arm machine, or a real device behind SSH.

Read ``base.py`` first. ``local.py``, ``emulated.py`` and ``ssh.py`` are the three kinds; ``registry.py`` keeps the
user's own; ``payload.py`` says what of edgetl goes there.
"""

from edgetl.devices.base import (
    EXECUTED,
    Device,
    DeviceProbe,
    bench,
    current,
    install,
    predict,
    predict_current,
    rollback,
    selftest,
)
from edgetl.devices.placement import Placement, answer, place
from edgetl.devices.process import stop_all, time_limit
from edgetl.devices.registry import (
    add_device,
    create_device,
    description,
    find_device,
    home,
    list_devices,
    probe_device,
    remove_device,
)

__all__ = [
    "EXECUTED",
    "Device",
    "DeviceProbe",
    "Placement",
    "add_device",
    "answer",
    "bench",
    "create_device",
    "current",
    "description",
    "find_device",
    "home",
    "install",
    "list_devices",
    "place",
    "predict",
    "predict_current",
    "probe_device",
    "remove_device",
    "rollback",
    "selftest",
    "stop_all",
    "time_limit",
]
