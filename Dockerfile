# The image of every Pod and of compose.yaml: the product at the locked versions, for a user without rights. No weights but
# the miniatures, no token, no compiler.
#
#   docker build --tag gigarouter:0.1.0-cpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
#   docker build --tag gigarouter:0.1.0-cuda .
#
# With `docker buildx build --sbom=true --provenance=true`, a list of all packages goes with it. BASE may be any Debian or
# Ubuntu with Python 3.11 to 3.13, of your own registry for example; give its digest where builds must not differ.

ARG BASE=python:3.12.11-slim-bookworm

FROM ${BASE} AS packages
# The index to take torch from, and nothing else; without it, torch comes from PyPI and brings CUDA along.
ARG TORCH_INDEX=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
COPY requirements/run.lock requirements/torch.lock requirements/
# As tools/environment.sh does it: all but torch is checked against the sums in the lock.
RUN python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install --require-hashes --no-deps --requirement requirements/run.lock \
    && python3 -m pip --python /opt/venv/bin/python install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
        --requirement requirements/torch.lock
COPY pyproject.toml README.md LICENSE ./
COPY vlm vlm
COPY logs logs
COPY metrics metrics
COPY traces traces
COPY serve_args serve_args
COPY router router
COPY deployments deployments
COPY gigarouter gigarouter
RUN python3 -m pip --python /opt/venv/bin/python install --no-deps --no-build-isolation . \
    && python3 -m pip --python /opt/venv/bin/python check

FROM ${BASE}
# The user of the manifests (runAsUser: 1000). Nothing here starts Ray: a token that it made would be in the image, and
# every cluster would refuse the Pods that have another.
RUN groupadd --gid 1000 ray && useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash ray \
    && mkdir /models && chown ray:ray /models
COPY --from=packages /opt/venv /opt/venv
WORKDIR /opt/gigarouter
COPY LICENSE serve_config.yaml ./
COPY k8s/overlays/kind/serve_config.yaml serve_config.miniatures.yaml
COPY miniatures miniatures
# KubeRay starts Ray by a shell that reads no profile, so that the path must be here.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/models \
    HF_HUB_DISABLE_TELEMETRY=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
EXPOSE 8000
CMD ["serve", "run", "serve_config.miniatures.yaml"]
