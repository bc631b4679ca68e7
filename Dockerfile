# A tag can move. For reproducible builds, give a digest: BASE_IMAGE=python@sha256:...
ARG BASE_IMAGE=python:3.11-slim-bookworm

# Images: `embedded`, the default, runs the models itself. `--target gateway` has no engine and no models, and calls
# Triton. `--target models` only has the models, for Triton.

FROM ${BASE_IMAGE} AS packages

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PATH=/opt/venv/bin:$PATH
RUN python -m venv /opt/venv
WORKDIR /src

# Locks without the code: the code changes more often, and must not rebuild the packages.
COPY locks locks


FROM packages AS gateway-packages
RUN pip install --require-hashes -r locks/gateway.txt \
    && pip uninstall --yes setuptools pip


# PyAV is a quarter of the size of all packages, and only videos on the command line need it.
FROM packages AS embedded-packages
RUN pip install --require-hashes -r locks/embedded.txt \
    && pip uninstall --yes av setuptools pip


FROM packages AS code
RUN pip install --require-hashes -r locks/build.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY service service
RUN pip install --no-deps --no-build-isolation --target /opt/expressnet .


# With a strict umask, the user of the image could not read the files of the checkout.
FROM ${BASE_IMAGE} AS models
COPY model_repository /opt/model_repository
RUN chmod -R a+rX /opt/model_repository


FROM models AS manifests
RUN find /opt/model_repository -type f ! -name manifest.json -delete \
    && find /opt/model_repository -type d -empty -delete


# Only Triton needs TorchScript.
FROM models AS onnx-models
RUN find /opt/model_repository -name model.pt -delete


FROM ${BASE_IMAGE} AS runtime

LABEL org.opencontainers.image.title="ExpressNet Service" \
      org.opencontainers.image.description="One photo in, the emotions of every face out." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

# On 0.0.0.0 the service only starts with EXPRESSNET_KEYS_FILE or EXPRESSNET_ALLOW_ANONYMOUS=true.
ENV PATH=/opt/expressnet/bin:/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/expressnet \
    PYTHONUNBUFFERED=1 \
    EXPRESSNET_HOST=0.0.0.0 \
    EXPRESSNET_MODEL_REPOSITORY=/opt/model_repository

# All files belong to root: this user can read them, and can write only to /tmp.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM

# http.client, because urllib would use a proxy from the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, ssl, sys; at = ('127.0.0.1', int(os.environ.get('EXPRESSNET_PORT', '8000'))); c = h.HTTPSConnection(*at, timeout=4, context=ssl._create_unverified_context()) if os.environ.get('EXPRESSNET_TLS_CERTIFICATE') else h.HTTPConnection(*at, timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]

CMD ["expressnet", "serve"]


FROM runtime AS gateway
ENV EXPRESSNET_ENGINE=triton
COPY --from=gateway-packages /opt/venv /opt/venv
COPY --from=manifests /opt/model_repository /opt/model_repository
COPY --from=code /opt/expressnet /opt/expressnet


FROM runtime AS embedded
COPY --from=embedded-packages /opt/venv /opt/venv
COPY --from=onnx-models /opt/model_repository /opt/model_repository
COPY --from=code /opt/expressnet /opt/expressnet
