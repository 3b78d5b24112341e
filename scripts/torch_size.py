"""Says what pip would fetch for a torch that is a CUDA build, before it fetches: `python3 torch_size.py torch==2.13.0`.

Prints one line with the gigabytes of it and all that it needs, and nothing where the wheel is a CPU build or nothing can be told.
Of pip's own modules, so that indices, mirrors, proxies and local folders are the ones that pip is configured for.
"""
import os
import sys

from pip._internal.commands.download import DownloadCommand
from pip._internal.metadata import FilesystemWheel, get_wheel_distribution
from pip._internal.network.lazy_wheel import dist_from_wheel_url
from pip._vendor.packaging.requirements import Requirement

command = DownloadCommand("download", "")
options, _ = command.parse_args(["--only-binary=:all:", "torch"])
session = command._build_session(options)
finder = command._build_package_finder(options, session)


def visit(requirement, sizes):
    """Adds the bytes to fetch for `requirement` and what it needs to `sizes`, by name."""
    if requirement.name in sizes:
        return
    link = finder.find_best_candidate(requirement.name, requirement.specifier).best_candidate.link
    if link.is_file:
        sizes[requirement.name] = 0
        wheel = get_wheel_distribution(FilesystemWheel(link.file_path), requirement.name)
    else:
        sizes[requirement.name] = int(session.head(link.url_without_fragment).headers["Content-Length"])
        wheel = dist_from_wheel_url(requirement.name, link.url_without_fragment, session)  # reads the wheel's directory alone
    for needed in wheel.iter_dependencies(requirement.extras):
        visit(needed, sizes)


sizes = {}
visit(Requirement(sys.argv[1]), sizes)
if any(name.startswith("nvidia-") for name in sizes) and sum(sizes.values()) > 0:
    print(f"{sys.argv[1]} is a CUDA build here: {sum(sizes.values()) / 1e9:.1f} GB to fetch ({len(sizes)} packages), about twice that on disk")
