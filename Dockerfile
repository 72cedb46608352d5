# The image of every Pod and of compose.yaml: the product at the locked versions, for a user without rights. No weights but
# the miniatures, no token, no compiler. /var/lib/gigarouter is for what accounts have not yet written to their database.
#
#   docker build --tag gigarouter:0.1.0-cpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
#   docker build --tag gigarouter:0.1.0-cuda .
#
# /opt/gigarouter/sbom.cdx.json lists the installed packages. BASE may be any Debian or Ubuntu with Python 3.11 to 3.13 and
# pip, of your own registry for example; give its digest where builds must not differ.

ARG BASE=python:3.12.11-slim-bookworm

FROM ${BASE} AS packages
# The index to take torch from, and nothing else; without it, torch comes from PyPI and brings CUDA along.
ARG TORCH_INDEX=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /build
COPY requirements/run.lock requirements/torch.lock requirements/sbom.txt requirements/
# As tools/environment.sh does it: all but torch is checked against the sums in the lock.
RUN python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install --require-hashes --no-deps --requirement requirements/run.lock \
    && python3 -m pip --python /opt/venv/bin/python install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
        --requirement requirements/torch.lock
COPY pyproject.toml README.md LICENSE ./
COPY accounts accounts
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
# The list of these packages, by a tool that stays behind.
RUN python3 -m venv --without-pip /opt/sbom \
    && python3 -m pip --python /opt/sbom/bin/python install --require-hashes --no-deps --requirement requirements/sbom.txt \
    && /opt/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --gather-license-texts --output-reproducible \
        --output-format JSON --output-file sbom.cdx.json /opt/venv/bin/python
# What only those need who compile against a package, or test it. The tests of transformers have a token of the hub.
RUN find /opt/venv/lib \( -name include -o -name '*.h' -o -name '*.a' \) -prune -exec rm -r {} + \
    && rm -r /opt/venv/lib/python3.*/site-packages/torch/test /opt/venv/lib/python3.*/site-packages/torch/bin/protoc* \
    && find /opt/venv/lib/python3.*/site-packages/transformers -name 'testing_utils.*' -delete

FROM ${BASE}
LABEL org.opencontainers.image.title="gigarouter" \
    org.opencontainers.image.description="An OpenAI-compatible router over small vision-language models on Ray Serve" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.licenses="Apache-2.0"
# The user of the manifests (runAsUser: 1000). Nothing here starts Ray: a token that it made would be in the image, and
# every cluster would refuse the Pods that have another. No program gets more rights than its caller.
RUN groupadd --gid 1000 ray && useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash ray \
    && mkdir /models /var/lib/gigarouter && chown ray:ray /models /var/lib/gigarouter \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY --from=packages /opt/venv /opt/venv
WORKDIR /opt/gigarouter
COPY LICENSE serve_config.yaml ./
COPY --from=packages /build/sbom.cdx.json ./
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
