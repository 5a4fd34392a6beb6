"""The plugin: `twistd vmtpd`. Strings only, so that listing plugins imports nothing of ours."""

from twisted.application.service import ServiceMaker

relay = ServiceMaker("VMTP relay", "vmtpd.tap", "A mail relay for local networks, durable before it says 250.", "vmtpd")
