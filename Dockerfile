ARG BASE_IMAGE=python:3.11-slim-bookworm

# Images: `embedded`, the default, runs the models itself; `--target gateway` has neither torch nor models and asks
# Triton; `--target models` only carries the models to where Triton runs.

FROM ${BASE_IMAGE} AS packages

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PATH=/opt/venv/bin:$PATH
RUN python -m venv /opt/venv
WORKDIR /src

# pip reads it from the environment. The ordinary Linux wheel of torch brings gigabytes of CUDA packages
# that the embedded engine does not use; PyTorch's index of CPU wheels has one without.
ARG PIP_EXTRA_INDEX_URL

# Installed for empty packages: the code changes daily, what it depends on seldom.
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
RUN mkdir service training


FROM packages AS gateway-packages
RUN pip install -c constraints.txt '.[triton]' \
    && pip uninstall --yes expressnet-service setuptools pip


# With the client of Triton, so that each model can run here or there. torch names setuptools among what it needs,
# but only to build extensions.
FROM packages AS embedded-packages
RUN pip install -c constraints.txt '.[embedded,triton]' \
    && pip uninstall --yes expressnet-service setuptools pip


FROM packages AS code
COPY service service
COPY training training
RUN pip install -c constraints.txt --no-deps --target /opt/expressnet .


# A checkout under a strict umask must not become an image that its user cannot read.
FROM ${BASE_IMAGE} AS models
COPY model_repository /opt/model_repository
RUN chmod -R a+rX /opt/model_repository


FROM models AS manifests
RUN find /opt/model_repository -type f ! -name manifest.json -delete \
    && find /opt/model_repository -type d -empty -delete


FROM ${BASE_IMAGE} AS runtime

LABEL org.opencontainers.image.title="ExpressNet Service" \
      org.opencontainers.image.description="One photo in, the emotions of every face out." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

ENV PATH=/opt/expressnet/bin:/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/expressnet \
    PYTHONUNBUFFERED=1 \
    EXPRESSNET_HOST=0.0.0.0 \
    EXPRESSNET_MODEL_REPOSITORY=/opt/model_repository

# All files belong to root: this user reads them and writes nowhere but in /tmp.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM

# http.client, because urllib would ask a proxy that the environment names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('EXPRESSNET_PORT', '8000')), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]

CMD ["expressnet", "serve"]


FROM runtime AS gateway
ENV EXPRESSNET_ENGINE=triton
COPY --from=gateway-packages /opt/venv /opt/venv
COPY --from=manifests /opt/model_repository /opt/model_repository
COPY --from=code /opt/expressnet /opt/expressnet


FROM runtime AS embedded
COPY --from=embedded-packages /opt/venv /opt/venv
COPY --from=models /opt/model_repository /opt/model_repository
COPY --from=code /opt/expressnet /opt/expressnet
