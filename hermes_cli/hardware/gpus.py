"""The GPUs that hermes knows by name: memory, memory bandwidth, and speed at FP16 where it is published.

Figures are those of the vendors' data sheets, white papers and product pages; `source` names them family by family.
A GPU whose figures are in doubt is left out. Bandwidth is what the memory can do at most: nothing reaches it in full.

Memory: the vendors' "GB" of a GPU are GiB (2^30 bytes). Bandwidth: GB/s are 10^9 bytes per second.

Speed is dense FP16 (never "with sparsity") with FP32 accumulation, in 10^12 operations per second:

    data centre, RTX workstation    as the data sheet says; where it says only FP8 or FP4 with sparsity, a fourth or
                                    an eighth of that, which is the ratio of these chips
    GeForce RTX 20                  8 * CUDA cores * boost clock, as in NVIDIA's Turing white paper
    GeForce RTX 30, 40, 50          4 * CUDA cores * boost clock, as in NVIDIA's GA102, Ada and Blackwell white papers
    AMD                             peak half precision of the product page (matrix units where there are any)
    Apple M1, M2                    what Apple said of FP32; these chips do FP16 at the same rate

Laptop GPUs have no figure for speed: it follows from the power that the maker of the laptop allows.
This is a Python module and no data file because it must load within a few milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from hermes_cli.units import GIB

if TYPE_CHECKING:
    from hermes_cli.hardware.machine import Vendor

GB = 10**9


@dataclass(frozen=True, eq=False)  # entries are compared by identity, which is faster
class Gpu:
    """One GPU as it is sold.

    Attributes:
        name: as its driver says it, without the vendor; with the memory where there are several of that name.
        gib: memory in GiB; of unified memory the most it is sold with.
        gb_per_s: memory bandwidth in GB/s, of all the memory of one device.
        tflops: dense FP16 in 10^12 operations per second, None if not published.
        also: other names, of drivers and of people; two GPUs may share one.
        usual: the one that people mean by a name that several GPUs share.
        sizes: unified memory only: the sizes in GiB that it is sold with.
        cores: GPU cores, where variants of one chip differ in bandwidth (Apple).
        dies: devices that llama.cpp sees of one card; all figures are those of one device.
        compute_capability: NVIDIA's number of the instruction set.
        source: where the figures are from.
    """

    vendor: Vendor
    name: str
    gib: int
    gb_per_s: float
    tflops: float | None = None
    also: tuple[str, ...] = ()
    usual: bool = False
    sizes: tuple[int, ...] = ()
    cores: int | None = None
    dies: int = 1
    compute_capability: str = ""
    source: str = ""

    @property
    def memory(self) -> int:
        """Bytes."""
        return self.gib * GIB

    @property
    def bandwidth(self) -> float:
        """Bytes per second."""
        return self.gb_per_s * GB

    @property
    def operations(self) -> float | None:
        """Dense FP16 operations per second, None if not published."""
        return self.tflops * 1e12 if self.tflops else None

    @property
    def unified(self) -> bool:
        """It shares the machine's RAM."""
        return bool(self.sizes)


_NVIDIA = partial(Gpu, "nvidia")
_GEFORCE = "NVIDIA GeForce product pages and architecture white papers"
_LAPTOP = "NVIDIA GeForce laptop pages: bus width, at the fastest memory that is sold with it"
_WORKSTATION = "NVIDIA RTX and Quadro data sheets"
_DATA_CENTRE = "NVIDIA data centre data sheets and product briefs"

_maxwell = partial(_NVIDIA, compute_capability="5.2")
_pascal = partial(_NVIDIA, compute_capability="6.1")
_gp100 = partial(_NVIDIA, compute_capability="6.0", source=_DATA_CENTRE)
_volta = partial(_NVIDIA, compute_capability="7.0")
_turing = partial(_NVIDIA, compute_capability="7.5")
_ga100 = partial(_NVIDIA, compute_capability="8.0", source=_DATA_CENTRE)
_ampere = partial(_NVIDIA, compute_capability="8.6")
_ada = partial(_NVIDIA, compute_capability="8.9")
_hopper = partial(_NVIDIA, compute_capability="9.0", source=_DATA_CENTRE)
_gb100 = partial(_NVIDIA, compute_capability="10.0", source=_DATA_CENTRE)
_blackwell = partial(_NVIDIA, compute_capability="12.0")

# Some cards were sold with two kinds of memory under one name: GTX 1060 6GB (192 or 216 GB/s), RTX 3060 Ti (448 or
# 608) and RTX 4070 (504 or 480). They stand here as they were first sold.
_GEFORCE_CARDS = (
    _pascal("GeForce GTX 1050 Ti", 4, 112, source=_GEFORCE),
    _pascal("GeForce GTX 1060 6GB", 6, 192, source=_GEFORCE),
    _pascal("GeForce GTX 1070", 8, 256, source=_GEFORCE),
    _pascal("GeForce GTX 1070 Ti", 8, 256, source=_GEFORCE),
    _pascal("GeForce GTX 1080", 8, 320, source=_GEFORCE),
    _pascal("GeForce GTX 1080 Ti", 11, 484, source=_GEFORCE),
    _pascal("TITAN X (Pascal)", 12, 480, source=_GEFORCE),
    _pascal("TITAN Xp", 12, 547.7, source=_GEFORCE),
    _volta("TITAN V", 12, 652.8, source=_GEFORCE),
    _turing("GeForce GTX 1650", 4, 128, source=_GEFORCE),
    _turing("GeForce GTX 1660", 6, 192, source=_GEFORCE),
    _turing("GeForce GTX 1660 SUPER", 6, 336, source=_GEFORCE),
    _turing("GeForce GTX 1660 Ti", 6, 288, source=_GEFORCE),
    _turing("GeForce RTX 2060 6GB", 6, 336, 25.8, usual=True, source=_GEFORCE),
    _turing("GeForce RTX 2060 12GB", 12, 336, source=_GEFORCE),
    _turing("GeForce RTX 2060 SUPER", 8, 448, 28.7, source=_GEFORCE),
    _turing("GeForce RTX 2070", 8, 448, 29.9, source=_GEFORCE),
    _turing("GeForce RTX 2070 SUPER", 8, 448, 36.2, source=_GEFORCE),
    _turing("GeForce RTX 2080", 8, 448, 40.3, source=_GEFORCE),
    _turing("GeForce RTX 2080 SUPER", 8, 496, 44.6, source=_GEFORCE),
    _turing("GeForce RTX 2080 Ti", 11, 616, 53.8, source=_GEFORCE),
    _turing("TITAN RTX", 24, 672, 130.5, source=_GEFORCE),
    _ampere("GeForce RTX 3050 6GB", 6, 168, source=_GEFORCE),
    _ampere("GeForce RTX 3050 8GB", 8, 224, usual=True, source=_GEFORCE),
    _ampere("GeForce RTX 3060 8GB", 8, 240, 25.5, source=_GEFORCE),
    _ampere("GeForce RTX 3060 12GB", 12, 360, 25.5, usual=True, source=_GEFORCE),
    _ampere("GeForce RTX 3060 Ti", 8, 448, 32.4, source=_GEFORCE),
    _ampere("GeForce RTX 3070", 8, 448, 40.6, source=_GEFORCE),
    _ampere("GeForce RTX 3070 Ti", 8, 608, 43.5, source=_GEFORCE),
    _ampere("GeForce RTX 3080 10GB", 10, 760, 59.5, usual=True, source=_GEFORCE),
    _ampere("GeForce RTX 3080 12GB", 12, 912, 61.3, source=_GEFORCE),
    _ampere("GeForce RTX 3080 Ti", 12, 912, 68.2, source=_GEFORCE),
    _ampere("GeForce RTX 3090", 24, 936, 71.2, source=_GEFORCE),
    _ampere("GeForce RTX 3090 Ti", 24, 1008, 80.0, source=_GEFORCE),
    _ada("GeForce RTX 4060", 8, 272, 30.2, source=_GEFORCE),
    _ada("GeForce RTX 4060 Ti 8GB", 8, 288, 44.1, source=_GEFORCE),
    _ada("GeForce RTX 4060 Ti 16GB", 16, 288, 44.1, source=_GEFORCE),
    _ada("GeForce RTX 4070", 12, 504, 58.3, source=_GEFORCE),
    _ada("GeForce RTX 4070 SUPER", 12, 504, 71.0, source=_GEFORCE),
    _ada("GeForce RTX 4070 Ti", 12, 504, 80.2, source=_GEFORCE),
    _ada("GeForce RTX 4070 Ti SUPER", 16, 672, 88.2, source=_GEFORCE),
    _ada("GeForce RTX 4080", 16, 716.8, 97.5, source=_GEFORCE),
    _ada("GeForce RTX 4080 SUPER", 16, 736, 104.4, source=_GEFORCE),
    _ada("GeForce RTX 4090", 24, 1008, 165.2, source=_GEFORCE),
    _ada("GeForce RTX 4090 D", 24, 1008, source=_GEFORCE),
    _blackwell("GeForce RTX 5050", 8, 320, 26.3, source=_GEFORCE),
    _blackwell("GeForce RTX 5060", 8, 448, 38.4, source=_GEFORCE),
    _blackwell("GeForce RTX 5060 Ti 8GB", 8, 448, 47.4, source=_GEFORCE),
    _blackwell("GeForce RTX 5060 Ti 16GB", 16, 448, 47.4, source=_GEFORCE),
    _blackwell("GeForce RTX 5070", 12, 672, 61.7, source=_GEFORCE),
    _blackwell("GeForce RTX 5070 Ti", 16, 896, 87.9, source=_GEFORCE),
    _blackwell("GeForce RTX 5080", 16, 960, 112.6, source=_GEFORCE),
    _blackwell("GeForce RTX 5090", 32, 1792, 209.5, source=_GEFORCE),
    _blackwell("GeForce RTX 5090 D", 32, 1792, source=_GEFORCE),
)

_GEFORCE_LAPTOPS = (
    _ampere("GeForce RTX 3060 Laptop GPU", 6, 336, source=_LAPTOP),
    _ampere("GeForce RTX 3070 Laptop GPU", 8, 448, source=_LAPTOP),
    _ampere("GeForce RTX 3070 Ti Laptop GPU", 8, 448, source=_LAPTOP),
    _ampere("GeForce RTX 3080 Laptop GPU 8GB", 8, 448, source=_LAPTOP),
    _ampere("GeForce RTX 3080 Laptop GPU 16GB", 16, 448, source=_LAPTOP),
    _ampere("GeForce RTX 3080 Ti Laptop GPU", 16, 512, source=_LAPTOP),
    _ada("GeForce RTX 4050 Laptop GPU", 6, 192, source=_LAPTOP),
    _ada("GeForce RTX 4060 Laptop GPU", 8, 256, source=_LAPTOP),
    _ada("GeForce RTX 4070 Laptop GPU", 8, 256, source=_LAPTOP),
    _ada("GeForce RTX 4080 Laptop GPU", 12, 432, source=_LAPTOP),
    _ada("GeForce RTX 4090 Laptop GPU", 16, 576, source=_LAPTOP),
    _blackwell("GeForce RTX 5060 Laptop GPU", 8, 384, source=_LAPTOP),
    _blackwell("GeForce RTX 5070 Laptop GPU", 8, 384, source=_LAPTOP),
    _blackwell("GeForce RTX 5070 Ti Laptop GPU", 12, 672, source=_LAPTOP),
    _blackwell("GeForce RTX 5080 Laptop GPU", 16, 896, source=_LAPTOP),
    _blackwell("GeForce RTX 5090 Laptop GPU", 24, 896, source=_LAPTOP),
)

# "RTX 4000", "RTX 5000" and "RTX 6000" are names of two generations: whoever types one is asked which.
_WORKSTATIONS = (
    _pascal("Quadro P4000", 8, 243, source=_WORKSTATION),
    _pascal("Quadro P5000", 16, 288, source=_WORKSTATION),
    _pascal("Quadro P6000", 24, 432, source=_WORKSTATION),
    _volta("Quadro GV100", 32, 870, source=_WORKSTATION),
    _turing("T1000", 4, 160, usual=True, source=_WORKSTATION),
    _turing("T1000 8GB", 8, 160, source=_WORKSTATION),
    _turing("Quadro RTX 4000", 8, 416, source=_WORKSTATION),
    _turing("Quadro RTX 5000", 16, 448, source=_WORKSTATION),
    _turing("Quadro RTX 6000", 24, 672, 130.5, source=_WORKSTATION),
    _turing("Quadro RTX 8000", 48, 672, 130.5, source=_WORKSTATION),
    _ampere("RTX A1000", 8, 192, source=_WORKSTATION),
    _ampere("RTX A2000 6GB", 6, 288, 31.9, source=_WORKSTATION),
    _ampere("RTX A2000 12GB", 12, 288, 31.9, source=_WORKSTATION),
    _ampere("RTX A4000", 16, 448, 76.7, source=_WORKSTATION),
    _ampere("RTX A4500", 20, 640, 94.6, source=_WORKSTATION),
    _ampere("RTX A5000", 24, 768, 111.1, source=_WORKSTATION),
    _ampere("RTX A5500", 24, 768, source=_WORKSTATION),
    _ampere("RTX A6000", 48, 768, 154.8, source=_WORKSTATION),
    _ada("RTX 2000 Ada Generation", 16, 224, 48.0, source=_WORKSTATION),
    _ada("RTX 4000 SFF Ada Generation", 20, 280, 76.7, source=_WORKSTATION),
    _ada("RTX 4000 Ada Generation", 20, 360, 106.9, also=("RTX 4000",), source=_WORKSTATION),
    _ada("RTX 4500 Ada Generation", 24, 432, 158.5, source=_WORKSTATION),
    _ada("RTX 5000 Ada Generation", 32, 576, 261.1, also=("RTX 5000",), source=_WORKSTATION),
    _ada("RTX 6000 Ada Generation", 48, 960, 364.2, also=("RTX 6000",), source=_WORKSTATION),
    _blackwell("RTX PRO 2000 Blackwell", 16, 288, also=("RTX PRO 2000",), source=_WORKSTATION),
    _blackwell("RTX PRO 4000 Blackwell", 24, 672, also=("RTX PRO 4000",), source=_WORKSTATION),
    _blackwell("RTX PRO 4500 Blackwell", 32, 896, also=("RTX PRO 4500",), source=_WORKSTATION),
    _blackwell("RTX PRO 5000 Blackwell", 48, 1344, also=("RTX PRO 5000",), source=_WORKSTATION),
    _blackwell(
        "RTX PRO 6000 Blackwell Workstation Edition",
        96,
        1792,
        503.8,
        also=("RTX PRO 6000 Blackwell", "RTX PRO 6000", "RTX 6000 Blackwell"),
        usual=True,
        source=_WORKSTATION,
    ),
    _blackwell(
        "RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        96,
        1792,
        438.9,
        also=("RTX PRO 6000 Blackwell", "RTX PRO 6000", "RTX PRO 6000 Max-Q"),
        source=_WORKSTATION,
    ),
    _blackwell(
        "RTX PRO 6000 Blackwell Server Edition",
        96,
        1597,
        also=("RTX PRO 6000 Blackwell", "RTX PRO 6000", "RTX PRO 6000 Server"),
        source=_WORKSTATION,
    ),
)

# Where PCIe and SXM versions have the same memory and bandwidth they are one entry, with the speed of the slower one.
# "A100" and "H100" usually mean the 80 GB SXM version: it is what clouds rent out.
_DATA_CENTRE_GPUS = (
    _maxwell("Tesla M40 24GB", 24, 288, source=_DATA_CENTRE),
    _pascal("Tesla P4", 8, 192, source=_DATA_CENTRE),
    _pascal("Tesla P40", 24, 346, source=_DATA_CENTRE),
    _gp100("Tesla P100 12GB", 12, 549, also=("Tesla P100-PCIE-12GB",)),
    _gp100("Tesla P100 16GB", 16, 732, also=("Tesla P100-PCIE-16GB", "Tesla P100-SXM2-16GB"), usual=True),
    _volta("Tesla V100 16GB", 16, 900, 112, also=("Tesla V100-PCIE-16GB", "Tesla V100-SXM2-16GB"), source=_DATA_CENTRE),
    _volta("Tesla V100 32GB", 32, 900, 112, also=("Tesla V100-PCIE-32GB", "Tesla V100-SXM2-32GB"), source=_DATA_CENTRE),
    _volta("Tesla V100S-PCIE-32GB", 32, 1134, 130, also=("Tesla V100S",), source=_DATA_CENTRE),
    _turing("Tesla T4", 16, 320, 65, source=_DATA_CENTRE),
    _ampere("A2", 16, 200, 18, source=_DATA_CENTRE),
    _ampere("A10", 24, 600, 125, source=_DATA_CENTRE),
    _ampere("A10G", 24, 600, source="Amazon EC2 G5 page and NVIDIA's A10 data sheet"),
    _ampere("A16", 16, 200, 17.9, dies=4, source=_DATA_CENTRE),
    _ampere("A40", 48, 696, 149.7, source=_DATA_CENTRE),
    _ga100("A30", 24, 933, 165),
    _ga100(
        "A100 40GB",
        40,
        1555,
        312,
        also=("A100-SXM4-40GB", "A100-PCIE-40GB", "A100 40GB SXM", "A100 SXM 40GB", "A100 40GB PCIe", "A100 PCIe 40GB"),
    ),
    _ga100(
        "A100 80GB SXM",
        80,
        2039,
        312,
        also=("A100-SXM4-80GB", "A100 SXM 80GB", "A100 SXM4", "A100 SXM", "A100 80GB", "A100"),
        usual=True,
    ),
    _ga100("A100 80GB PCIe", 80, 1935, 312, also=("A100-PCIE-80GB", "A100 PCIe 80GB", "A100 PCIe", "A100 80GB")),
    _ada("L4", 24, 300, 121, source=_DATA_CENTRE),
    _ada("L40", 48, 864, 181, source=_DATA_CENTRE),
    _ada("L40S", 48, 864, 362, source=_DATA_CENTRE),
    _hopper("H100 SXM", 80, 3350, 989.4, also=("H100 80GB HBM3", "H100 SXM5", "H100 SXM5 80GB", "H100"), usual=True),
    _hopper("H100 PCIe", 80, 2000, 756, also=("H100",)),
    _hopper("H100 NVL", 94, 3938, 835.5, also=("H100",)),
    _hopper("H200", 141, 4800, 989.4, also=("H200 SXM",)),
    _hopper("H200 NVL", 141, 4800, 835.5),
    # The driver calls it by the memory of its CPU.
    _hopper("GH200 96GB", 96, 4000, 989.4, also=("GH200 480GB",)),
    _hopper("GH200 144GB", 144, 4900, 989.4, also=("GH200 144G HBM3e",)),
    _gb100("B200", 180, 8000, 2250),
    _gb100("GB200", 186, 8000, 2500),
    _NVIDIA(
        "GB10",
        128,
        273,
        also=("DGX Spark", "NVIDIA DGX Spark"),
        sizes=(128,),
        compute_capability="12.1",
        source="NVIDIA DGX Spark user guide",
    ),
)

_AMD = partial(Gpu, "amd", source="AMD product pages")
_AMD_GPUS = (
    _AMD("Radeon VII", 16, 1024),
    _AMD("Radeon RX 5700", 8, 448),
    _AMD("Radeon RX 5700 XT", 8, 448),
    _AMD("Radeon RX 6600", 8, 224, 17.9),
    _AMD("Radeon RX 6600 XT", 8, 256, 21.2),
    _AMD("Radeon RX 6650 XT", 8, 280, 21.6),
    _AMD("Radeon RX 6700 XT", 12, 384, 26.4),
    _AMD("Radeon RX 6750 XT", 12, 432, 26.6),
    _AMD("Radeon RX 6800", 16, 512, 32.3),
    _AMD("Radeon RX 6800 XT", 16, 512, 41.5),
    _AMD("Radeon RX 6900 XT", 16, 512, 46.1),
    _AMD("Radeon RX 6950 XT", 16, 576, 47.3),
    _AMD("Radeon RX 7600", 8, 288, 43.5),
    _AMD("Radeon RX 7600 XT", 16, 288, 45.1),
    _AMD("Radeon RX 7700 XT", 12, 432, 70.3),
    _AMD("Radeon RX 7800 XT", 16, 624, 74.7),
    _AMD("Radeon RX 7900 GRE", 16, 576, 92),
    _AMD("Radeon RX 7900 XT", 20, 800, 103),
    _AMD("Radeon RX 7900 XTX", 24, 960, 123),
    _AMD("Radeon RX 9060 XT 8GB", 8, 320, 103),
    _AMD("Radeon RX 9060 XT 16GB", 16, 320, 103),
    _AMD("Radeon RX 9070", 16, 640, 145),
    _AMD("Radeon RX 9070 XT", 16, 640, 195),
    _AMD("Radeon AI PRO R9700", 32, 640, 191, also=("R9700", "Radeon PRO R9700")),
    _AMD("Radeon PRO W6800", 32, 512, 35.7),
    _AMD("Radeon PRO W7600", 8, 288),
    _AMD("Radeon PRO W7700", 16, 576),
    _AMD("Radeon PRO W7800 32GB", 32, 576, 90.5, usual=True),
    _AMD("Radeon PRO W7800 48GB", 48, 864),
    _AMD("Radeon PRO W7900", 48, 864, 122.6),
    _AMD("Instinct MI50 16GB", 16, 1024, 26.5),
    _AMD("Instinct MI50 32GB", 32, 1024, 26.5),
    _AMD("Instinct MI60", 32, 1024, 29.5),
    _AMD("Instinct MI100", 32, 1228.8, 184.6),
    _AMD("Instinct MI210", 64, 1638.4, 181),
    # Two dies, which are two devices to llama.cpp; the product page has the sum: 128 GB, 3.2 TB/s, 383 TFLOPS.
    _AMD("Instinct MI250X", 64, 1638.4, 191.5, also=("Instinct MI250X / MI250",), dies=2),
    _AMD("Instinct MI300X", 192, 5300, 1307.4),
    _AMD("Instinct MI325X", 256, 6000, 1307.4),
    _AMD("Instinct MI350X", 288, 8000, 2306.9),
    _AMD("Instinct MI355X", 288, 8000, 2516.6),
    _AMD(
        "Radeon 8060S",
        128,
        256,
        also=("Ryzen AI Max+ 395", "Strix Halo"),
        sizes=(32, 64, 96, 128),
        source="AMD Ryzen AI Max+ 395 product page: 256-bit LPDDR5X-8000",
    ),
)

_INTEL = partial(Gpu, "intel", source="Intel ARK")
_INTEL_GPUS = (
    _INTEL("Arc A380", 6, 186),
    _INTEL("Arc A580", 8, 512),
    _INTEL("Arc A750", 8, 512),
    _INTEL("Arc A770 8GB", 8, 512),
    _INTEL("Arc A770 16GB", 16, 560, usual=True),
    _INTEL("Arc B570", 10, 380),
    _INTEL("Arc B580", 12, 456),
    _INTEL("Arc Pro B50", 16, 224),
    _INTEL("Arc Pro B60", 24, 456),
)

_APPLE = partial(Gpu, "apple", source="Apple technical specifications and newsroom")
_APPLE_CHIPS = (
    _APPLE("M1", 16, 68, 2.6, sizes=(8, 16)),
    _APPLE("M1 Pro", 32, 200, 5.2, sizes=(16, 32)),
    _APPLE("M1 Max", 64, 400, 10.4, sizes=(32, 64)),
    _APPLE("M1 Ultra", 128, 800, 21, sizes=(64, 128)),
    _APPLE("M2", 24, 100, 3.6, sizes=(8, 16, 24)),
    _APPLE("M2 Pro", 32, 200, sizes=(16, 32)),
    _APPLE("M2 Max", 96, 400, sizes=(32, 64, 96)),
    _APPLE("M2 Ultra", 192, 800, sizes=(64, 128, 192)),
    _APPLE("M3", 24, 100, sizes=(8, 16, 24)),
    _APPLE("M3 Pro", 36, 150, sizes=(18, 36)),
    _APPLE("M3 Max 30-core", 96, 300, also=("M3 Max",), sizes=(36, 96), cores=30),
    _APPLE("M3 Max 40-core", 128, 400, also=("M3 Max",), sizes=(48, 64, 128), cores=40),
    _APPLE("M3 Ultra", 512, 819, sizes=(96, 256, 512)),
    _APPLE("M4", 32, 120, sizes=(16, 24, 32)),
    _APPLE("M4 Pro", 64, 273, sizes=(24, 48, 64)),
    _APPLE("M4 Max 32-core", 36, 410, also=("M4 Max",), sizes=(36,), cores=32),
    _APPLE("M4 Max 40-core", 128, 546, also=("M4 Max",), sizes=(48, 64, 128), cores=40),
    _APPLE("M5", 32, 153, sizes=(16, 24, 32)),
    _APPLE("M5 Pro", 64, 307, sizes=(24, 48, 64)),
    _APPLE("M5 Max 32-core", 36, 460, also=("M5 Max",), sizes=(36,), cores=32),
    _APPLE("M5 Max 40-core", 128, 614, also=("M5 Max",), sizes=(48, 64, 128), cores=40),
)

GPUS: tuple[Gpu, ...] = (
    *_GEFORCE_CARDS,
    *_GEFORCE_LAPTOPS,
    *_WORKSTATIONS,
    *_DATA_CENTRE_GPUS,
    *_AMD_GPUS,
    *_INTEL_GPUS,
    *_APPLE_CHIPS,
)
