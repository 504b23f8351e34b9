"""Paho as the test uses it: does what is asked on standard input, one JSON object a line, and says what happens the same way.

Commands:   connect {port, transport, version, id, clean, will, expiry, keepalive, password}, subscribe {topic, qos}, unsubscribe {topic},
            publish {topic, payload, qos, retain, properties}, disconnect {}
Events:     connected {code, present}, subscribed {granted}, unsubscribed {}, published {}, disconnected {code},
            message {topic, payload, qos, retain, dup, properties}
"""

import json
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def number(code):
    """Versions of MQTT differ in the type of a reason code."""
    return code if isinstance(code, int) else code.value


def properties_of(packet_type, values):
    properties = Properties(packet_type)
    for name, value in (values or {}).items():
        if name == "CorrelationData":
            value = value.encode()
        if name == "UserProperty":
            value = [tuple(pair) for pair in value]
        setattr(properties, name, value)
    return properties


class Session:
    def __init__(self):
        self.client = None
        self.version = 4

    def connect(self, port, transport, version, id="", clean=True, will=None, expiry=0, keepalive=60, password=None):
        self.version = version
        options = {"client_id": id, "protocol": version, "transport": transport}
        if version < 5:
            options["clean_session"] = clean
        if hasattr(mqtt, "CallbackAPIVersion"):  # Paho 2
            options["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
        client = mqtt.Client(**options)
        if transport == "websockets":
            client.ws_set_options(path="/mqtt")
        if password is not None:
            client.username_pw_set("anything", password)
        client.on_connect = lambda c, u, flags, code, *_: say("connected", code=number(code), present=flags["session present"])
        client.on_disconnect = lambda c, u, code, *_: say("disconnected", code=number(code))
        client.on_subscribe = lambda c, u, mid, granted, *_: say("subscribed", granted=[number(code) for code in granted])
        client.on_unsubscribe = lambda *_: say("unsubscribed")
        client.on_publish = lambda *_: say("published")
        client.on_message = self.on_message
        if will is not None:
            client.will_set(will["topic"], will["payload"], will["qos"], will.get("retain", False))
        self.client = client
        if version == 5:
            properties = properties_of(PacketTypes.CONNECT, {"SessionExpiryInterval": expiry})
            client.connect("127.0.0.1", port, keepalive, clean_start=clean, properties=properties)
        else:
            client.connect("127.0.0.1", port, keepalive)
        client.loop_start()

    def on_message(self, client, userdata, message):
        properties = getattr(message, "properties", None)
        say(
            "message",
            topic=message.topic,
            payload=message.payload.hex(),
            qos=message.qos,
            retain=bool(message.retain),
            dup=bool(message.dup),
            properties={} if properties is None else properties.json(),
        )

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos)

    def unsubscribe(self, topic):
        self.client.unsubscribe(topic)

    def publish(self, topic, payload, qos, retain=False, properties=None):
        more = {"properties": properties_of(PacketTypes.PUBLISH, properties)} if self.version == 5 else {}
        self.client.publish(topic, bytes.fromhex(payload), qos, retain, **more)

    def disconnect(self):
        self.client.disconnect()


session = Session()
for line in sys.stdin:
    command = json.loads(line)
    getattr(session, command.pop("command"))(**command)
