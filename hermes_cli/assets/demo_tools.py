"""The tools of `hermes chat demo --tools demo`. They make their answers up, the same ones every time."""

import zlib


def get_weather(city: str) -> dict[str, str | int]:
    """Get the weather for a city."""
    number = zlib.crc32(city.encode())
    sky = ("sunny", "cloudy", "rainy", "windy", "clear", "light rain")[number % 6]
    return {"city": city, "temperature": number // 6 % 30, "condition": sky}


def get_time(city: str) -> dict[str, str]:
    """Get the local time."""
    number = zlib.crc32(city.encode())
    return {"city": city, "time": f"{number % 24:02}:{number // 24 % 60:02}"}
