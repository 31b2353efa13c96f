# One image for every part of Tidewatch; the command says which.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY scorers scorers
COPY stream stream
COPY producers producers
COPY sinks sinks
COPY serving serving
COPY tidewatch tidewatch
RUN python -m venv /opt/tidewatch && /opt/tidewatch/bin/pip install --no-cache-dir .

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 tidewatch && install -d -o tidewatch -g tidewatch /data
COPY --from=build /opt/tidewatch /opt/tidewatch
ENV PATH=/opt/tidewatch/bin:$PATH PYTHONUNBUFFERED=1
USER tidewatch
RUN python -c 'from stream.warm import warm; warm()'
WORKDIR /data
VOLUME /data
ENTRYPOINT ["tidewatch"]
CMD ["--help"]
